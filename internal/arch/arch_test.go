package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/gatehouse-dev/gatehouse"

// rooms lists, for every box under internal, the boxes that it may import, or just a
// sub-package of one. The root package and a box's own sub-packages are always
// allowed. "*" is everything.
var rooms = map[string][]string{
	// The way of data: pure. They read through interfaces handed in.
	// Policies hold trusted roots: decide makes and checks them with the very code that
	// verify reads them with, which knows documents only, and nothing of verifying.
	"index": {}, "match": {}, "verify": {}, "provenance": {}, "decide": {"vex", "provenance", "verify/trust", "expr"}, "expr": {}, "sbom": {}, "vex": {}, "malware": {},
	// What it stands on.
	"db": {}, "blob": {}, "egress": {}, "config": {}, "feed": {}, "sign": {}, "fetch": {},
	"update": {"feed"},
	"tlog":   {"db"}, "job": {"db"}, "auth": {"db"}, "audit": {"db"},
	// Joins.
	"content": {"db", "blob"}, "gather": {}, "facts": {}, "retention": {"db"}, "quota": {"db"},
	"pipeline": {"content", "db", "blob", "feed", "index", "match", "verify", "gather", "decide", "job", "update", "malware"},
	// Edges: what they need they ask for in a small interface of their own.
	"registry": {}, "admit": {}, "api": {}, "web": {}, "notify": {},
	// Custom resources are defined by the grammars that their documents are read with.
	"operator": {"decide/manifest"},
	// What the Pods of a cluster are of, as decide reads it.
	"running": {"decide/workload"},
	"mirror":  {}, "backup": {}, "report": {}, "adapter": {}, "opinion": {"adapter"}, "sigstore": {},
	// Wiring.
	"server": {"*"}, "keyref": {"sign", "egress"}, "outside": {"decide", "keyref", "sign"}, "quickstart": {"server", "config", "sign", "fetch", "egress"}, "simtest": {"*"},
	"arch": {},
}

// cmdMay is what the command line may import besides server and config, for
// commands that work without a server.
var cmdMay = []string{
	"server", "config", "content", "quickstart", "index", "match", "verify", "decide", "expr", "sbom", "vex", "db", "blob",
	"egress", "feed", "update", "sign", "keyref", "outside", "fetch", "gather", "report", "admit", "malware", "tlog",
}

// owners says which boxes may touch a foreign library. "test" files are free.
var owners = []struct {
	path string
	by   []string
	why  string
}{
	{"k8s.io/", []string{"admit", "operator", "decide", "expr"}, "Kubernetes types stay at the cluster's edge, its CEL in expr"},
	{"sigs.k8s.io/controller-runtime", []string{"operator"}, "controllers live in operator"},
	{"github.com/sigstore/", []string{"verify", "sign", "sigstore", "keyref"}, "signature formats live in verify and sign, Sigstore's protocols in sigstore, that of KMS plugins in keyref"},
	{"github.com/notaryproject/", []string{"verify"}, "signature formats live in verify and sign"},
	{"github.com/veraison/", []string{"verify"}, "signature formats live in verify and sign"},
	{"github.com/open-policy-agent/", []string{"decide"}, "Rego lives in decide/rego"},
	{"cuelang.org/", []string{"decide"}, "CUE lives in decide/cue"},
	{"github.com/google/cel-go", []string{"expr"}, "CEL lives in expr"},
	{"database/sql", []string{"db"}, "db owns all SQL"},
	{"modernc.org/", []string{"db"}, "db owns all SQL"},
	{"github.com/jackc/pgx", []string{"db"}, "db owns all SQL"},
	{"github.com/pressly/goose", []string{"db"}, "db owns all SQL"},
	{"github.com/minio/", []string{"blob"}, "S3 lives in blob/s3"},
	{"html/template", []string{"web"}, "pages live in web"},
	{"github.com/google/osv-scalibr", []string{"index"}, "extractors live in index"},
	{"github.com/knqyf263/go-rpmdb", []string{"index"}, "package databases are read in index"},
	{"github.com/google/go-containerregistry", []string{"fetch", "sign"}, "registry clients live in fetch"},
	{"github.com/spf13/cobra", []string{"cmd"}, "commands live in cmd/gatehouse"},
	{"github.com/prometheus/", []string{"server"}, "figures are counted where they arise and shown in server"},
	{"go.opentelemetry.io/", []string{"server"}, "spans are made in server; boxes have hooks"},
}

func TestImports(t *testing.T) {
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// test/ holds modules of their own, with heavy tools.
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || hasGoMod(path)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		checkFile(t, path, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Fatalf("walked only %d files: the test looks at the wrong folder", files)
	}
}

func hasGoMod(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// room names the box that a file lives in: "" for the root package, "cmd", or
// the first folder under internal.
func room(rel string) string {
	parts := strings.Split(rel, "/")
	switch {
	case len(parts) == 1:
		return ""
	case parts[0] == "internal":
		return parts[1]
	}
	return parts[0]
}

func checkFile(t *testing.T, path, rel string) {
	t.Helper()
	mode := parser.SkipObjectResolution
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, mode)
	if err != nil {
		t.Errorf("%s: %v", rel, err)
		return
	}
	box, isTest := room(rel), strings.HasSuffix(rel, "_test.go")
	// Test suites and helpers may stand on anything.
	helper := isTest || strings.HasSuffix(filepath.Dir(rel), "test") || box == "test"
	if _, known := rooms[box]; box != "" && box != "cmd" && box != "test" && !known {
		t.Errorf("%s: internal/%s is no room of the house; add it to rooms with what it may import", rel, box)
	}
	for _, spec := range f.Imports {
		imp, _ := strconv.Unquote(spec.Path.Value)
		if helper {
			continue
		}
		if why := forbidden(box, imp); why != "" {
			t.Errorf("%s imports %s: %s", rel, imp, why)
		}
	}
	if !helper && !slices.Contains(egressFree, box) {
		for _, problem := range dialling(f) {
			if strings.Contains(problem, " os/exec.") && slices.Contains(programsFree, box) {
				continue
			}
			t.Errorf("%s %s: every outbound connection goes through internal/egress", rel, problem)
		}
	}
	if !helper {
		checkInit(t, rel, f)
	}
}

func forbidden(box, imp string) string {
	if rest, ok := strings.CutPrefix(imp, module+"/internal/"); ok {
		target, _, _ := strings.Cut(rest, "/")
		if strings.HasSuffix(rest, "test") {
			return "a test suite in the product"
		}
		if target == box {
			return ""
		}
		allowed := rooms[box]
		if box == "cmd" {
			allowed = cmdMay
		}
		if box == "" {
			return "the root package holds words only"
		}
		if !slices.Contains(allowed, "*") && !slices.Contains(allowed, target) && !slices.Contains(allowed, rest) {
			return box + " may import " + strings.Join(allowed, ", ") + " (internal/arch/arch_test.go)"
		}
		return ""
	}
	if box == "" && strings.Contains(strings.Split(imp, "/")[0], ".") {
		return "the root package imports the standard library only"
	}
	if pure(box) && (imp == "log" || imp == "log/slog" || imp == "net/http") {
		return box + " is pure: no log, no dialling"
	}
	for _, o := range owners {
		if (imp == strings.TrimSuffix(o.path, "/") || strings.HasPrefix(imp, strings.TrimSuffix(o.path, "/")+"/")) && !slices.Contains(o.by, box) {
			return o.why
		}
	}
	return ""
}

func pure(box string) bool {
	return slices.Contains([]string{"index", "match", "verify", "provenance", "decide", "expr", "sbom", "vex", "malware"}, box)
}

// checkInit forbids init functions: lists of parts are literals in server.
func checkInit(t *testing.T, rel string, f *ast.File) {
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			t.Errorf("%s has an init function; wire it in server", rel)
		}
	}
}

// TestPackageComments asks every package to say in a sentence what it is.
func TestPackageComments(t *testing.T) {
	has := map[string]bool{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || hasGoMod(path)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		has[dir] = has[dir] || f.Doc != nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range has {
		if !ok {
			t.Errorf("%s: no file has a package comment", dir)
		}
	}
}
