package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// TestLocalImageHint: "gatehouse image your-app:latest" reads like docker.io; who
// has built it on this machine is told the way, others get the registry's hint.
func TestLocalImageHint(t *testing.T) {
	const local = "no store on this machine has it either; if another machine does: docker save your-app:latest -o image.tar, then gatehouse scan --input image.tar"
	down := gatehouse.Errorf(gatehouse.CodeUnavailable, "no such host")
	login := gatehouse.Errorf(gatehouse.CodeDenied, "unauthorized").WithHint("log in")
	for _, c := range []struct {
		typed string
		err   error
		want  string
	}{
		{"your-app:latest", down, local},
		{"your-app:latest", login, local},
		{"your-app:latest", down.WithHint("name one with --platform"), "name one with --platform"},
		{"registry.example/your-app:latest", login, "log in"},
		{"your-app:latest", errors.New("bug"), ""},
	} {
		ref, err := gatehouse.ParseRef(c.typed)
		if err != nil {
			t.Fatal(err)
		}
		got := localImage(c.err, ref, c.typed)
		if hint := gatehouse.HintOf(got); hint != c.want || gatehouse.CodeOf(got) != gatehouse.CodeOf(c.err) {
			t.Errorf("%s, %v: hint %q, code %s", c.typed, c.err, hint, gatehouse.CodeOf(got))
		}
	}
}

func TestGaveUpNamesTheFlag(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	<-ctx.Done()
	err := gaveUp(ctx, ctx.Err(), "timeout", 3*time.Minute)
	if err.Error() != "gave up after 3m0s: context deadline exceeded" || gatehouse.HintOf(err) != "allow it more time with --timeout" {
		t.Errorf("%v, hint %q", err, gatehouse.HintOf(err))
	}
	if other := errors.New("other"); gaveUp(t.Context(), other, "timeout", time.Second) != other {
		t.Error("an error in time is changed")
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("yaml: line 2:\n\n  mapping values\n"); got != "yaml: line 2: mapping values" {
		t.Errorf("%q", got)
	}
}

// TestErrorsAreText: names of images, files and servers stand in errors and notes;
// a terminal does not obey them.
func TestErrorsAreText(t *testing.T) {
	const evil = "a\x1b[2J\u202eb"
	for _, args := range [][]string{
		{"scan", evil}, {"scan", "--input", evil}, {"scan", "--explain", "x", evil}, {"scan", "--format", evil, "x"},
		{"rootfs", evil}, {"sbom", evil}, {"db", "import", evil}, {evil},
	} {
		var out, errs bytes.Buffer
		env := map[string]string{"XDG_CACHE_HOME": t.TempDir()}
		if code := run(t.Context(), args, func(k string) string { return env[k] }, nil, &out, &errs); code != 2 {
			t.Errorf("%q: exit code %d", args, code)
		}
		if text := out.String() + errs.String(); strings.ContainsAny(text, "\x1b\u202e") || !strings.HasPrefix(text, "error: ") {
			t.Errorf("%q prints %q", args, text)
		}
	}
}

// TestInterrupted: what ctrl-C breaks off is called so, whatever broke.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	env := map[string]string{"XDG_CACHE_HOME": t.TempDir()}
	code := run(ctx, []string{"rootfs", t.TempDir()}, func(k string) string { return env[k] }, nil, &out, &errs)
	if code != 2 || errs.String() != "error: rootfs: interrupted\nhint: run it again to have an answer\n" {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
}

// TestFileThatWasMeant: who forgets --input, or names a file that is not there,
// is told so.
func TestFileThatWasMeant(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "app.tar")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	down := gatehouse.Errorf(gatehouse.CodeUnavailable, "no such host").WithHint("try again")
	for _, c := range []struct {
		got  error
		want string
	}{
		{orFile(down, file), "there is a file of that name: gatehouse scan --input " + file},
		{orFile(down, dir), "there is a directory of that name: gatehouse rootfs looks at installed packages, gatehouse fs at sources, gatehouse scan --input at an OCI layout"},
		{orFile(down, file+".gone"), "try again"},
		{noFileEither(down, file+".gone"), file + ".gone is taken for an image, since there is no file of that name"},
		{noFileEither(down, "gone.json"), "gone.json is taken for an image, since there is no file of that name"},
		{noFileEither(down, "registry.example/gone:v1"), "try again"},
		{noFileEither(down, file), "try again"},
		{noFileEither(errors.New("bug"), file+".gone"), ""},
	} {
		if hint := gatehouse.HintOf(c.got); hint != c.want {
			t.Errorf("%q, want %q", hint, c.want)
		}
	}
	if orFile(nil, file) != nil || noFileEither(nil, "x") != nil {
		t.Error("no error became one")
	}
}
