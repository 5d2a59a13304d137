package load_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/fix"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestText loads the files of testdata/*.txtar and compares what lint says of
// them, first the names of the policies that were read, then the problems.
func TestText(t *testing.T) {
	text.Run(t, "testdata/*.txtar", 5, func(_ *testing.T, a *txtar.Archive) string {
		var files []load.File
		for _, f := range a.Files {
			if f.Name != "want" {
				files = append(files, load.File{Path: f.Name, Data: f.Data})
			}
		}
		return describe(load.Load(files, gatehouse.Deny))
	})
}

func describe(set decide.PolicySet, problems []decide.Problem) string {
	var b strings.Builder
	fmt.Fprintf(&b, "complete=%v\n", set.Complete)
	for _, p := range set.Policies {
		fmt.Fprintf(&b, "policy %s\n", p.Name())
	}
	for _, p := range problems {
		fmt.Fprintln(&b, p)
		if p.Hint != "" {
			fmt.Fprintf(&b, "\thint: %s\n", p.Hint)
		}
	}
	return b.String()
}

func TestDigest(t *testing.T) {
	a, b := load.File{Path: "a.rego", Data: []byte("package a\ndeny contains \"a\" if false\n")}, load.File{Path: "b.rego", Data: []byte("package b\ndeny contains \"b\" if false\n")}
	one, _ := load.Load([]load.File{a, b}, gatehouse.Deny)
	two, _ := load.Load([]load.File{b, a}, gatehouse.Deny)
	if one.Digest != two.Digest || one.Digest == "" {
		t.Errorf("digest depends on the order of files: %s, %s", one.Digest, two.Digest)
	}
	lax, _ := load.Load([]load.File{a, b}, gatehouse.Allow)
	fewer, _ := load.Load([]load.File{a}, gatehouse.Deny)
	if lax.Digest == one.Digest || fewer.Digest == one.Digest {
		t.Error("the digest does not tell sets apart")
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{
		"a.yaml": "a", "sub/b.rego": "b", "sub/b_test.rego": "t", "README.md": "r", ".hidden/c.yaml": "h", "..data/d.yaml": "d", "e.JSON": "{}",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, problems := load.Read(dir, filepath.Join(dir, "a.yaml"))
	var names []string
	for _, f := range files {
		rel, err := filepath.Rel(dir, f.Path)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, rel)
	}
	if diff := cmp.Diff([]string{"a.yaml", "e.JSON", "sub/b.rego"}, names); diff != "" || len(problems) > 0 {
		t.Errorf("files differ (-want +got):\n%s%v", diff, problems)
	}
	if _, problems := load.Read(filepath.Join(dir, "absent")); len(problems) != 1 {
		t.Errorf("an absent path gives %v", problems)
	}
}

func TestLimits(t *testing.T) {
	big := load.File{Path: "big.yaml", Data: []byte(strings.Repeat("#\n", manifest.FileSizeMax))}
	many := load.File{Path: "many.yaml", Data: []byte(strings.Repeat("a: b\n---\n", manifest.DocumentsMax+1))}
	deep := load.File{Path: "deep.yaml", Data: []byte("apiVersion: gatehouse.dev/v1alpha1\nkind: ImageRule\nmetadata: {name: x}\nstatus: " + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "\n")}
	module := load.File{Path: "big.rego", Data: []byte("package a\n" + strings.Repeat("#\n", 1<<20))}
	for _, f := range []load.File{big, many, deep, module} {
		set, problems := load.Load([]load.File{f}, gatehouse.Allow)
		named := slices.ContainsFunc(problems, func(p decide.Problem) bool {
			return strings.Contains(p.Message, " allowed") || strings.Contains(p.Message, "deeper than")
		})
		if set.Complete || !named {
			t.Errorf("%s: complete=%v %v", f.Path, set.Complete, problems)
		}
	}
}

// TestSeedDocument reads the document that the project was asked for, in the
// bytes that reached us.
func TestSeedDocument(t *testing.T) {
	text := seedDocument(t)
	manifest, _, _ := strings.Cut(text[strings.Index(text, "apiVersion:"):], "\nBut we also")
	set, problems := load.Load([]load.File{{Path: "policy.yaml", Data: []byte(manifest + "\n")}}, gatehouse.Deny)
	got := describe(set, problems)
	for _, want := range []string{"indentation of this document was lost", "gatehouse policy fix policy.yaml", "{action: pass|fail", "exclude each other", "spec.images[].glob"} {
		if !strings.Contains(got, want) {
			t.Errorf("lint does not say %q:\n%s", want, got)
		}
	}
	fixed, _, err := fix.File("policy.yaml", []byte(manifest+"\n"), load.Grammars())
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{"# Images in our production repo MUST be signed", "# Let's be a bit more lax in staging, maybe", "# Your cosign.pub content goes here"} {
		if !strings.Contains(fixed, kept) {
			t.Errorf("policy fix lost %q:\n%s", kept, fixed)
		}
	}
	if _, left := load.Load([]load.File{{Path: "policy.yaml", Data: []byte(fixed)}}, gatehouse.Deny); len(left) != 1 || !strings.Contains(left[0].Message, "key.data is not a PEM public key") {
		t.Errorf("after policy fix lint says %v of\n%s", left, fixed)
	}
	indented := regexp.MustCompile(`(?m)^( +)# removed by gatehouse policy fix: (.*)\n.*\n`).ReplaceAllString(fixed, "$1$2\n")
	got = describe(load.Load([]load.File{{Path: "policy.yaml", Data: []byte(indented)}}, gatehouse.Deny))
	if !strings.Contains(got, "policy.yaml:15: spec.authorities[0].static: must be an object {action: pass|fail") || strings.Contains(got, "indentation") {
		t.Errorf("of the re-indented policy lint says:\n%s", got)
	}
	rego := text[strings.Index(text, "package kubernetes"):]
	rego = rego[:strings.Index(rego, "\n}\n")+3]
	set, problems = load.Load([]load.File{{Path: "rule.rego", Data: []byte(rego)}}, gatehouse.Deny)
	if !set.Complete || len(set.Policies) != 1 || set.Policies[0].Name() != "kubernetes.validating.images" {
		t.Errorf("the Rego rule does not load: %v", problems)
	}
	if len(problems) != 1 || !problems[0].Warning || !strings.Contains(problems[0].Message, "initContainers") {
		t.Errorf("lint does not warn of initContainers: %v", problems)
	}
}

func seedDocument(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_SHARED")
	if dir == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			if root == filepath.Dir(root) {
				t.Fatal("no go.mod above the test")
			}
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, "..", "shared")
	}
	path := filepath.Join(dir, "seeds", "image-security.txt")
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		t.Skip("the seed document is not here: " + path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func FuzzLoad(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	outside, err := filepath.Glob("testdata/outside/*.txtar")
	if err != nil || len(outside) == 0 {
		f.Fatal("no trust roots", err)
	}
	paths = append(paths, outside...)
	for _, path := range paths {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			f.Add(file.Name, file.Data)
		}
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if len(data) > 1<<14 {
			t.Skip("long inputs only slow the fuzzer down")
		}
		path := "fuzz.yaml"
		if strings.HasSuffix(name, ".rego") {
			path = "fuzz.rego"
		}
		set, problems := load.Load([]load.File{{Path: path, Data: data}}, gatehouse.Deny)
		// Trust roots, templates and what policies refer to alone are a whole set, which
		// denies for want of policies.
		if len(set.Policies) == 0 && set.Complete && !regexp.MustCompile(`TrustRoot|Secret|ConfigMap|\.gatekeeper\.sh/`).Match(data) {
			t.Error("an empty set is complete")
		}
		if !set.Complete && len(decide.Errors(problems)) == 0 {
			t.Error("not complete without a problem")
		}
		again, _ := load.Load([]load.File{{Path: path, Data: data}}, gatehouse.Deny)
		if again.Complete != set.Complete || again.Digest != set.Digest || len(again.Policies) != len(set.Policies) {
			t.Error("loading twice gives two sets")
		}
	})
}

// TestConstraintBeforeItsTemplate: the order in which they are loaded does not matter, and
// a constraint whose template is not there denies what it matches, and nothing else.
func TestConstraintBeforeItsTemplate(t *testing.T) {
	const text = `{"apiVersion":"constraints.gatekeeper.sh/v1beta1","kind":"Absent","metadata":{"name":"a"},
		"spec":{"match":{"kinds":[{"apiGroups":[""],"kinds":["Service"]}]}}}`
	problems := load.Loader{}.Check("cluster/Absent/a", []byte(text), nil)
	if refusal, warnings := load.Refusal(problems); refusal != "" || len(warnings) != 1 {
		t.Errorf("at its creation it is refused with %q, warned of with %q", refusal, warnings)
	}
	set, _ := load.Load([]load.File{{Path: "a.yaml", Data: []byte(text)}}, gatehouse.Allow)
	if !set.Complete {
		t.Error("the set is not whole")
	}
	for kind, want := range map[string]gatehouse.Verdict{"Service": gatehouse.Deny, "ConfigMap": gatehouse.Allow} {
		for _, operation := range []string{"CREATE", "UPDATE", "DELETE"} {
			d := decide.Decide(t.Context(), set, gatehouse.Request{
				Kind: gatehouse.ObjectKind{Version: "v1", Kind: kind}, Operation: operation, Name: "x",
				Object: []byte(`{"apiVersion":"v1","kind":"` + kind + `","metadata":{"name":"x"}}`),
			})
			expected := want
			if operation == "DELETE" {
				expected = gatehouse.Allow
			}
			if d.Verdict != expected {
				t.Errorf("%s of a %s: %s: %+v", operation, kind, d.Verdict, d.Reasons)
			}
		}
	}
}

// TestTemplateThatItsConstraintsDoNotFit: a template may be replaced by one that takes
// other parameters, with a word of warning, since neither could come first otherwise. Its
// constraints then do as their enforcement actions say to all that they match, and nothing
// else changes. None that does not fit is created.
func TestTemplateThatItsConstraintsDoNotFit(t *testing.T) {
	template := func(kind string) string {
		return `{"apiVersion":"templates.gatekeeper.sh/v1","kind":"ConstraintTemplate","metadata":{"name":"limited"},"spec":{"crd":{"spec":{"names":{"kind":"Limited"},
			"validation":{"openAPIV3Schema":{"type":"object","properties":{"most":{"type":"` + kind + `"}}}}}},
			"targets":[{"target":"admission.k8s.gatekeeper.sh","rego":"package limited\nviolation[{\"msg\": \"no\"}] { input.parameters.most == 1 }"}]}}`
	}
	files := []load.File{
		{Path: "t", Data: []byte(template("integer"))},
		{Path: "c", Data: []byte(`{"apiVersion":"constraints.gatekeeper.sh/v1beta1","kind":"Limited","metadata":{"name":"a"},"spec":{"parameters":{"most":1}}}`)},
		{Path: "other", Data: []byte(`{"kind":"Unknown"}`)}, // is wrong before, too
	}
	if problems := (load.Loader{}).Check("t", []byte(template("number")), files); len(decide.Wrong(problems)) > 0 {
		t.Errorf("a template that fits: %v", problems)
	}
	refusal, warnings := load.Refusal(load.Loader{}.Check("t", []byte(template("string")), files))
	if refusal != "" || len(warnings) != 1 || !strings.Contains(warnings[0], "c:1: spec.parameters.most") {
		t.Errorf("one that does not is refused with %q, warned of with %q", refusal, warnings)
	}
	if refusal, _ := load.Refusal(load.Loader{}.Check("c", files[1].Data, []load.File{{Path: "t", Data: []byte(template("string"))}})); !strings.Contains(refusal, "spec.parameters.most") {
		t.Errorf("a constraint that does not fit is refused with %q", refusal)
	}
	broken := strings.Replace(template("integer"), "== 1", "== ", 1)
	if refusal, _ := load.Refusal(load.Loader{}.Check("t", []byte(broken), files)); refusal == "" {
		t.Error("a template that cannot be compiled is stored")
	}

	pod := gatehouse.Request{
		Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"}, Operation: "CREATE", Name: "x",
		Object: []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"registry.example/a:1"}]}}`),
	}
	for action, want := range map[string]gatehouse.Verdict{"deny": gatehouse.Deny, "warn": gatehouse.Warn, "dryrun": gatehouse.Warn} {
		set, problems := load.Load([]load.File{
			{Path: "t", Data: []byte(template("string"))},
			{Path: "c", Data: []byte(strings.Replace(string(files[1].Data), `"spec":{`, `"spec":{"enforcementAction":"`+action+`","match":{"kinds":[{"apiGroups":[""],"kinds":["Pod"]}]},`, 1))},
		}, gatehouse.Allow)
		if !set.Complete || len(decide.Errors(problems)) != 1 || len(decide.Wrong(problems)) != 0 {
			t.Errorf("complete=%t with %v", set.Complete, problems)
		}
		pod.Images = set.Images(pod)
		d := decide.Decide(t.Context(), set, pod)
		if d.Verdict != want || !strings.Contains(fmt.Sprint(d.Reasons), "do not fit the template limited: spec.parameters.most: must be a string") {
			t.Errorf("%s: %s because %+v", action, d.Verdict, d.Reasons)
		}
		other := pod
		other.Images = nil
		other.Kind.Kind, other.Object = "Service", []byte(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"x"}}`)
		if d := decide.Decide(t.Context(), set, other); d.Verdict != gatehouse.Allow {
			t.Errorf("what it does not match: %s because %+v", d.Verdict, d.Reasons)
		}
	}
}

// TestNamesOfRules: what the API server may judge alone is said by rules that enforce, for
// all objects and without exceptions.
func TestNamesOfRules(t *testing.T) {
	rule := func(name, more string) load.File {
		return load.File{Path: name, Data: []byte(`{"apiVersion":"gatehouse.dev/v1alpha1","kind":"ImageRule","metadata":{"name":"` + name + `"},
			"spec":{"images":[{"glob":"a.example/**"}],"registries":{"allow":["a.example"],"deny":["a.example/old/*"]},"requireDigest":true` + more + `}}`)}
	}
	set, problems := load.Load([]load.File{
		rule("all", ""), rule("warns", `,"mode":"warn"`), rule("dry", `,"mode":"dryRun"`), rule("some", `,"match":{"namespaces":["a"]}`),
		rule("but", `,"exceptions":[{"reasons":["registry-denied"],"owner":"ann@a.example","reason":"moves","expires":"2999-01-01T00:00:00Z"}]`),
		{Path: "scans", Data: []byte(`{"apiVersion":"gatehouse.dev/v1alpha1","kind":"ImageRule","metadata":{"name":"scans"},"spec":{"images":[{"glob":"**"}],"requireScan":true}}`)},
	}, gatehouse.Deny)
	if bad := decide.Errors(problems); len(bad) > 0 {
		t.Fatal(bad)
	}
	want := decide.Outline{Images: true, Globs: []string{"**", "a.example/**"}, Names: []decide.NameRule{{
		Policy: "all", Images: []string{"a.example/**"}, Deny: []string{"a.example/old/*"}, Allow: []string{"a.example/**"}, Digest: true,
	}}}
	if diff := cmp.Diff(want, set.Outline()); diff != "" {
		t.Error(diff)
	}
	// By one name of the registry it is said of all.
	set.Names = decide.Names{Hosts: []string{"b.example:5000", "A.example:443"}}
	want.Names[0].Images = []string{"a.example/**", "b.example:5000/**", "A.example:443/**"}
	want.Names[0].Allow = want.Names[0].Images
	want.Names[0].Deny = []string{"a.example/old/*", "b.example:5000/old/*", "A.example:443/old/*"}
	if diff := cmp.Diff(want, set.Outline()); diff != "" {
		t.Error(diff)
	}
}
