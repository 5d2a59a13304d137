package decide_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestText decides the cases of testdata/*.txtar. The comment holds "key:
// value" lines (operation, noMatch, namespace, hosts with vouch: names of one registry,
// mutated, user, groups); *.yaml files other than object.yaml, old.yaml (before an
// update) and namespace.yaml, and
// all .rego files are policies; facts.json tells the facts of each image by its
// field; want is the decision.
func TestText(t *testing.T) {
	text.Run(t, "testdata/*.txtar", 15, func(t *testing.T, a *txtar.Archive) string { return readCase(t, a).decide(t) })
}

type textCase struct {
	set decide.PolicySet
	req gatehouse.Request
}

// imageFacts is how a case writes what is known of an image.
type imageFacts struct {
	Digest     gatehouse.Digest
	Signed     []string            // needs
	Signers    map[string][]string // by need: who signed, "key NAME" or "SUBJECT of ISSUER"
	Attested   []attested
	Format     string
	Rejected   []gatehouse.Rejected
	Scanned    bool
	Incomplete []string
	Findings   []gatehouse.Finding
	Partial    map[gatehouse.Kind][]string
	Overlays   []string
	Documents  []document // verified
	Added      []gatehouse.AddedFindings
	Failed     map[string]*gatehouse.Error
	Platforms  map[string]json.RawMessage
	AsOf       time.Time
	TagFixed   bool
	Builds     []gatehouse.ImageBuild
}

// attested is a verified statement.
type attested struct {
	Need, Predicate, Format string
	Key                     gatehouse.Digest // of the signer; empty: some key
	Subject                 gatehouse.Digest // empty: the image
	SignedAt                time.Time
	Statement               json.RawMessage
}

// document is a VEX document that an authority has signed.
type document struct {
	Need     string
	Subject  gatehouse.Digest // empty: the image
	Artifact gatehouse.Digest
	Body     json.RawMessage
}

func readCase(t testing.TB, ar *txtar.Archive) textCase {
	t.Helper()
	var c textCase
	header := map[string]string{"operation": "CREATE", "noMatch": "deny"}
	for line := range strings.Lines(string(ar.Comment)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(line, "#") {
			header[key] = value
		}
	}
	var noMatch gatehouse.Verdict
	if err := json.Unmarshal([]byte(`"`+header["noMatch"]+`"`), &noMatch); err != nil {
		t.Fatal(err)
	}
	var files []load.File
	facts := map[string]imageFacts{}
	for _, f := range ar.Files {
		switch {
		case f.Name == "object.yaml":
			c.req.Object = toJSON(t, f.Data)
		case f.Name == "old.yaml":
			c.req.OldObject = toJSON(t, f.Data)
		case f.Name == "namespace.yaml":
			c.req.NamespaceObject = toJSON(t, f.Data)
		case f.Name == "facts.json":
			if err := json.Unmarshal(f.Data, &facts); err != nil {
				t.Fatal(err)
			}
		case strings.HasSuffix(f.Name, ".yaml"), strings.HasSuffix(f.Name, ".rego"):
			files = append(files, load.File{Path: f.Name, Data: f.Data})
		}
	}
	var problems []decide.Problem
	c.set, problems = load.Load(files, noMatch)
	for _, p := range problems {
		t.Log(p)
	}
	if hosts := header["hosts"]; hosts != "" {
		c.set.Names = decide.Names{Hosts: strings.Split(hosts, " "), Vouch: header["vouch"] == "true"}
	}
	c.req.Operation, c.req.Namespace, c.req.Mutated = header["operation"], header["namespace"], header["mutated"] == "yes"
	if user := header["user"]; user != "" {
		c.req.User = gatehouse.User{Name: user, Groups: strings.Fields(header["groups"])}
	}
	if c.req.Mutated {
		var kind struct{ Kind string }
		if err := json.Unmarshal(c.req.Object, &kind); err != nil {
			t.Fatal(err)
		}
		c.req.Kind.Kind = kind.Kind
		if kind.Kind == "Deployment" {
			c.req.Kind.Group = "apps"
		}
	}
	c.req.Now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	if header["feed"] != "none" {
		c.req.FeedAt = c.req.Now.Add(-time.Hour)
	}
	c.req.Images = c.set.Images(c.req)
	for i := range c.req.Images {
		facts[c.req.Images[i].Field].fill(&c.req.Images[i])
	}
	return c
}

func (f imageFacts) fill(to *gatehouse.ImageFacts) {
	if f.Digest != "" {
		to.Image.Digest = f.Digest
	}
	if f.Format == "" {
		f.Format = "sigstore-bundle-v0.3"
	}
	for _, need := range f.Signed {
		to.Evidence = append(to.Evidence, gatehouse.Evidence{
			Need: need, Subject: to.Image.Digest, Format: f.Format,
			Artifact: gatehouse.DigestOf([]byte("artifact")), Identity: gatehouse.Identity{Key: gatehouse.DigestOf([]byte("key"))},
		})
	}
	for _, need := range slices.Sorted(maps.Keys(f.Signers)) {
		for _, who := range f.Signers[need] {
			id := gatehouse.Identity{}
			if key, ok := strings.CutPrefix(who, "key "); ok {
				id.Key = gatehouse.DigestOf([]byte(key))
			} else {
				id.Subject, id.Issuer, _ = strings.Cut(who, " of ")
			}
			to.Evidence = append(to.Evidence, gatehouse.Evidence{Need: need, Subject: to.Image.Digest, Format: f.Format, Artifact: gatehouse.DigestOf([]byte(who)), Identity: id})
		}
	}
	for _, a := range f.Attested {
		if a.Format == "" {
			a.Format = f.Format
		}
		if a.Key == "" {
			a.Key = gatehouse.DigestOf([]byte("key"))
		}
		if a.Subject == "" {
			a.Subject = to.Image.Digest
		}
		to.Evidence = append(to.Evidence, gatehouse.Evidence{
			Need: a.Need, Subject: a.Subject, Format: a.Format, Predicate: a.Predicate, SignedAt: a.SignedAt, Payload: a.Statement,
			Artifact: gatehouse.DigestOf(a.Statement), Identity: gatehouse.Identity{Key: a.Key},
		})
	}
	for _, d := range f.Documents {
		subject := to.Image.Digest
		if d.Subject != "" {
			subject = d.Subject
		}
		to.Evidence = append(to.Evidence, gatehouse.Evidence{Need: d.Need, Subject: subject, Artifact: d.Artifact, Format: "signed-artifact", Payload: d.Body})
	}
	to.Rejected, to.Failed, to.Findings, to.Added = f.Rejected, f.Failed, f.Findings, f.Added
	to.Builds = f.Builds
	to.Partial, to.Overlays = f.Partial, f.Overlays
	for platform, config := range f.Platforms {
		if to.Platforms == nil {
			to.Platforms = map[string][]byte{}
		}
		to.Platforms[platform] = config
	}
	to.AsOf, to.TagFixed = f.AsOf, f.TagFixed
	if f.Scanned {
		to.Inventory = &gatehouse.Inventory{Subject: to.Image.Digest, Complete: true}
		to.Complete, to.Incomplete = len(f.Incomplete) == 0, f.Incomplete
	}
}

func (c textCase) decide(t *testing.T) string {
	d := decide.Decide(context.Background(), c.set, c.req)
	if d.ID == "" || d.Policies != c.set.Digest || !d.At.Equal(c.req.Now) {
		t.Errorf("decision without id, policies or time: %+v", d)
	}
	if again := decide.Decide(context.Background(), c.set, c.req); !cmp.Equal(d, again) {
		t.Errorf("the same request was decided differently:\n%s", cmp.Diff(d, again))
	}
	var b strings.Builder
	fmt.Fprintln(&b, d.Verdict)
	for _, r := range d.Reasons {
		fmt.Fprintf(&b, "%s %s policy=%s field=%s image=%s\n\t%s\n", r.Verdict, r.Code, r.Policy, r.Field, r.Image, r.Message)
		if r.Hint != "" {
			fmt.Fprintf(&b, "\thint: %s\n", r.Hint)
		}
	}
	return b.String()
}

func toJSON(t testing.TB, data []byte) []byte {
	t.Helper()
	b, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
