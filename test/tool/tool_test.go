package tool_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

func root(t *testing.T) string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := tool.ModuleRoot(wd)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestTools: every tool is pinned by a module of its own, with go.sum.
func TestTools(t *testing.T) {
	dir := root(t)
	for _, tl := range tool.Tools() {
		version, err := tl.Version(dir)
		if err != nil {
			t.Errorf("%s: %v", tl.Name, err)
			continue
		}
		sums, err := os.ReadFile(filepath.Join(dir, "test", "tools", tl.Dir, "go.sum"))
		if err != nil {
			t.Errorf("%s: %v", tl.Name, err)
		}
		if line := tl.Module + " " + version + " h1:"; !strings.Contains(string(sums), line) {
			t.Errorf("%s: go.sum lacks %q", tl.Name, line)
		}
		if len(tl.Stages) == 0 {
			t.Errorf("%s: no stage needs it", tl.Name)
		}
		if (tl.File == "") == (tl.Package == "") {
			t.Errorf("%s: it is either a program or a file", tl.Name)
		}
		if tl.File == "" && !strings.HasPrefix(tl.Package, tl.Module) && tl.Package != "github.com/gatehouse-dev/gatehouse/test/tools/"+tl.Dir {
			t.Errorf("%s: %s is no package of %s", tl.Name, tl.Package, tl.Module)
		}
	}
	if got := (tool.Tool{Name: "kube-apiserver"}).Env(); got != "GATEHOUSE_KUBE_APISERVER" {
		t.Errorf("Env is %s", got)
	}
	if _, err := tool.Lookup("kubectl"); err == nil || !strings.Contains(err.Error(), "kube-apiserver") {
		t.Errorf("an unknown tool: %v, want an error that names those known", err)
	}
}

// TestEnsure builds a small program from a module of its own, once; a second
// call takes it from the cache, and a new version is built anew.
func TestEnsure(t *testing.T) {
	// The go command keeps its own cache below XDG_CACHE_HOME, too.
	goCache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOCACHE", strings.TrimSpace(string(goCache)))
	cache, clone := t.TempDir(), t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("GOFLAGS", "-mod=mod")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(clone, "test", "tools", "hello", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pin := func(version string) {
		write("go.mod", "module tools\n\ngo 1.26\n\nrequire example.com/hello "+version+
			"\n\nreplace example.com/hello => ./src\n")
	}
	pin("v1.2.3")
	write("src/go.mod", "module example.com/hello\n\ngo 1.26\n")
	write("src/main.go", "package main\n\nvar version string\n\nfunc main() { print(version) }\n")
	hello := tool.Tool{Name: "hello", Dir: "hello", Module: "example.com/hello", Package: "example.com/hello",
		LDFlags: "-X main.version=%s"}

	var log bytes.Buffer
	path, err := hello.Ensure(context.Background(), clone, &log)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(cache, "gatehouse-test", "hello-v1.2.3", "hello"); path != want {
		t.Errorf("built at %s, want %s", path, want)
	}
	out, err := exec.Command(path).CombinedOutput()
	if err != nil || string(out) != "v1.2.3" {
		t.Errorf("hello says %q, %v", out, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the build left %v, %v beside the binary", entries, err)
	}

	// From the cache: even a source that does not build any more is not asked.
	write("src/main.go", "package main\n\nfunc main() { undefined() }\n")
	if _, err := hello.Ensure(context.Background(), clone, &log); err != nil {
		t.Errorf("a cached tool was built again: %v", err)
	}
	pin("v1.2.4")
	_, err = hello.Ensure(context.Background(), clone, &log)
	if err == nil || !strings.Contains(err.Error(), "undefined: undefined") {
		t.Errorf("building a new version: %v, want the compiler's complaint", err)
	}
	if _, err := os.Stat(filepath.Join(cache, "gatehouse-test", "hello-v1.2.4", "hello")); err == nil {
		t.Error("a failed build left a binary")
	}
}

func TestNeed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "no-such-tool")
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Run("absent", func(t *testing.T) {
		probe := &fakeTB{TB: t}
		tool.Need(probe, "no-such-tool")
		if want := "no-such-tool is not installed and GATEHOUSE_NO_SUCH_TOOL is not set"; probe.skipped != want {
			t.Errorf("skipped with %q, want %q", probe.skipped, want)
		}
	})
	t.Run("by environment", func(t *testing.T) {
		t.Setenv("GATEHOUSE_NO_SUCH_TOOL", path)
		if got := tool.Need(t, "no-such-tool"); got != path {
			t.Errorf("found %s", got)
		}
	})
	t.Run("by PATH", func(t *testing.T) {
		t.Setenv("PATH", dir)
		if got := tool.Need(t, "no-such-tool"); got != path {
			t.Errorf("found %s", got)
		}
	})
}

// fakeTB notes a skip instead of leaving the test.
type fakeTB struct {
	testing.TB
	skipped string
}

func (f *fakeTB) Skipf(format string, args ...any) {
	f.skipped = fmt.Sprintf(format, args...)
}
