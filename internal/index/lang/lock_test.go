package lang_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	cpb "github.com/google/osv-scalibr/binary/proto/config_go_proto"
	"github.com/google/osv-scalibr/extractor/filesystem"
	"github.com/google/osv-scalibr/extractor/filesystem/language/cpp/conanlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/dart/pubspec"
	"github.com/google/osv-scalibr/extractor/filesystem/language/dotnet/packagesconfig"
	"github.com/google/osv-scalibr/extractor/filesystem/language/dotnet/packageslockjson"
	"github.com/google/osv-scalibr/extractor/filesystem/language/dotnet/paketlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/golang/gomod"
	"github.com/google/osv-scalibr/extractor/filesystem/language/haskell/cabal"
	"github.com/google/osv-scalibr/extractor/filesystem/language/haskell/stacklock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/java/gradlelockfile"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/bunlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/packagelockjson"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/pnpmlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/yarnlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/julia/manifesttoml"
	"github.com/google/osv-scalibr/extractor/filesystem/language/php/composerlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/pdmlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/pipfilelock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/poetrylock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/pylock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/requirements"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/uvlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/r/renvlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/ruby/gemfilelock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/rust/cargolock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/swift/podfilelock"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

// oracles are osv-scalibr's extractors by the name of their file. Those of
// pom.xml, mix.lock and Package.resolved resolve, split or name differently on
// purpose; for the other formats it has none.
var oracles = map[string]func(*cpb.PluginConfig) (filesystem.Extractor, error){
	"package-lock.json": packagelockjson.New, "npm-shrinkwrap.json": packagelockjson.New, "yarn.lock": yarnlock.New,
	"pnpm-lock.yaml": pnpmlock.New, "bun.lock": bunlock.New, "Pipfile.lock": pipfilelock.New, "poetry.lock": poetrylock.New,
	"uv.lock": uvlock.New, "pdm.lock": pdmlock.New, "pylock.toml": pylock.New, "requirements.txt": requirements.New,
	"go.mod": gomod.New, "Cargo.lock": cargolock.New, "gradle.lockfile": gradlelockfile.New, "Gemfile.lock": gemfilelock.New,
	"composer.lock": composerlock.New, "packages.lock.json": packageslockjson.New, "packages.config": packagesconfig.New,
	"paket.lock": paketlock.New, "pubspec.lock": pubspec.New, "Podfile.lock": podfilelock.New, "conan.lock": conanlock.New,
	"renv.lock": renvlock.New, "Manifest.toml": manifesttoml.New, "cabal.project.freeze": cabal.New, "stack.yaml.lock": stacklock.New,
}

// TestLock runs testdata/lock/*.txtar: a lock file, and the packages that a
// human reads from it, "name version". osv-scalibr's extractor has to agree on
// everything with a version, besides what is listed.
func TestLock(t *testing.T) {
	files, err := filepath.Glob("testdata/lock/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lockfile, want, besides := a.Files[0], rowsOf(a, "want"), rowsOf(a, "scalibr has besides")
			if !lang.IsLock("app/" + lockfile.Name) {
				t.Errorf("%s is not taken for a lock file", lockfile.Name)
			}
			found, err := lang.Lock(t.Context(), "app/"+lockfile.Name, section(lockfile.Data), 100)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, names(found)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			withCRLF := bytes.ReplaceAll(lockfile.Data, []byte("\n"), []byte("\r\n"))
			if again, err := lang.Lock(t.Context(), lockfile.Name, section(withCRLF), 100); err != nil || cmp.Diff(names(found), names(again)) != "" {
				t.Errorf("with CRLF: %v %v", names(again), err)
			}
			if build := oracles[lockfile.Name]; build != nil {
				released := slices.DeleteFunc(names(found), func(row string) bool { return strings.HasSuffix(row, " ") })
				oracle := slices.DeleteFunc(oracleRows(t, build, lockfile), func(row string) bool { return slices.Contains(besides, row) })
				if d := cmp.Diff(oracle, released); d != "" {
					t.Errorf("-osv-scalibr +ours:\n%s", d)
				}
			}
		})
	}
}

// rowsOf returns the lines of a part, sorted.
func rowsOf(a *txtar.Archive, part string) []string {
	rows := []string{}
	for _, f := range a.Files {
		if f.Name != part {
			continue
		}
		for line := range strings.Lines(string(f.Data)) {
			rows = append(rows, strings.TrimSuffix(line, "\n"))
		}
	}
	slices.Sort(rows)
	return rows
}

func oracleRows(t *testing.T, build func(*cpb.PluginConfig) (filesystem.Extractor, error), f txtar.File) []string {
	t.Helper()
	e, err := build(&cpb.PluginConfig{})
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{f.Name: {Data: f.Data}}
	info, err := files.Stat(f.Name)
	if err != nil {
		t.Fatal(err)
	}
	found, err := e.Extract(t.Context(), &filesystem.ScanInput{FS: files, Path: f.Name, Info: info, Reader: bytes.NewReader(f.Data)})
	if err != nil {
		t.Fatalf("osv-scalibr: %v", err)
	}
	rows := []string{}
	for _, p := range found.Packages {
		name := p.Name
		if path.Base(f.Name) == "Podfile.lock" {
			name, _, _ = strings.Cut(name, "/")
		}
		if row := name + " " + p.Version; p.Version != "" && !strings.HasPrefix(p.Version, "dev-") && true {
			rows = append(rows, row)
		}
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}

func TestIsLock(t *testing.T) {
	for name, want := range map[string]bool{
		"package-lock.json": true, "a/b/go.mod": true, "requirements.txt": true, "requirements-dev.txt": true, "pylock.web.toml": true,
		"node_modules/a/package-lock.json": false, "app/vendor/x/go.mod": false, "lib/python3/site-packages/x/requirements.txt": false,
		"readme.txt": false, "myrequirements.txt": false, "package.json": false, "go.sum": false,
	} {
		if got := lang.IsLock(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := lang.Lock(t.Context(), "other.txt", section(""), 1); !errors.Is(err, lang.ErrOther) {
		t.Error(err)
	}
}

// TestLockLicenses: what the lock file says of licences is kept.
func TestLockLicenses(t *testing.T) {
	got, err := lang.Lock(t.Context(), "package-lock.json", section(`{"packages": {"node_modules/a": {"version": "1.0.0", "license": "MIT"}}}`), 9)
	if err != nil || len(got) != 1 || !slices.Equal(got[0].Licenses, []string{"MIT"}) || got[0].Type != "npm" {
		t.Errorf("%+v %v", got, err)
	}
}

// TestLockRefuses: what cannot be read is an error beside what was read.
func TestLockRefuses(t *testing.T) {
	for _, test := range []struct {
		name, file, body, want string
		packages               int
	}{
		{"truncated", "package-lock.json", `{"packages": {"node_modules/a": {"version": "1.0.0"}, "node_modules/b": {"ver`, "EOF", 1},
		{"no object", "composer.lock", `[]`, "object is due", 0},
		{"no list", "composer.lock", `{"packages": {}}`, "list is due", 0},
		{"nothing", "renv.lock", ``, "EOF", 0},
		{"nested without end", "npm-shrinkwrap.json", strings.Repeat(`{"dependencies":{"a":`, 300) + "7" + strings.Repeat("}}", 300), "nested too deep", 1},
		{"deeper than JSON is read", "bun.lock", `{"packages": {"a": [` + strings.Repeat("[", 20_000), "", 0},
		{"no version of the format", "pnpm-lock.yaml", "packages:\n  /a/1.0.0:\n", "no lockfileVersion", 0},
		{"bad XML", "pom.xml", "<project><dependencies>", "XML", 0},
		{"large XML", "packages.config", "<packages>" + strings.Repeat(" ", 5<<20), "more than 4194304", 0},
		{"large go.mod", "go.mod", strings.Repeat("\n", 2<<20), "more than 1048576", 0},
		{"bad go.mod", "go.mod", "module a\nrequire (\n", "go.mod", 0},
		{"too many", "Cargo.lock", strings.Repeat("[[package]]\nname = \"a\"\nversion = \"1\"\n", 3) + manyCrates(30), "more packages than may be kept", 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := lang.Lock(t.Context(), test.file, section(test.body), 20)
			if err == nil || !strings.Contains(err.Error(), test.want) || len(got) != test.packages {
				t.Errorf("%d packages, %v; want %d, %q", len(got), err, test.packages, test.want)
			}
		})
	}
	if _, err := lang.Lock(t.Context(), "yarn.lock", section(make([]byte, lang.LockSizeMax+1)), 1); err == nil {
		t.Error("a file that is too large was read")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lang.Lock(ctx, "Cargo.lock", section(manyCrates(10)), 100); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func manyCrates(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "[[package]]\nname = \"crate%d\"\nversion = \"1.0.0\"\n\n", i)
	}
	return b.String()
}

// TestLockLargeStaysLinear reads large files that others search again
// for each package, or recurse into: they end, and well within a test's time.
func TestLockLargeStaysLinear(t *testing.T) {
	const size = lang.LockSizeMax / 4
	fill := func(head, one, tail string) string {
		return head + strings.Repeat(one, (size-len(head)-len(tail))/len(one)) + tail
	}
	for file, body := range map[string]string{
		"requirements.txt": fill("", "a\\\n", ""),
		"poetry.lock":      fill("[[package]]\nname = ", "[", ""),
		"Pipfile.lock":     fill(`{"default": {`, `"a": {"version": "==1"},`, `"b": {}}}`),
		"pubspec.lock":     fill("packages:\n", "  a:\n    version: \"1\"\n", ""),
	} {
		_, _ = lang.Lock(t.Context(), file, section(body), 1000)
	}
}

func TestRequirementsUTF16(t *testing.T) {
	body := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune("Jinja2==2.11.1\r\nflask==1.0\r\n")) {
		body = binary.LittleEndian.AppendUint16(body, u)
	}
	got, err := lang.Lock(t.Context(), "requirements.txt", section(body), 10)
	if d := cmp.Diff([]string{"Jinja2 2.11.1", "flask 1.0"}, names(got)); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}

func FuzzLock(f *testing.F) {
	files, err := filepath.Glob("testdata/lock/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Name, a.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		packages, _ := lang.Lock(context.Background(), name, section(b), 10)
		if len(packages) > 10 {
			t.Errorf("%d packages", len(packages))
		}
		for _, p := range packages {
			if p.Name == "" || p.Type == "" {
				t.Errorf("%+v", p)
			}
		}
	})
}
