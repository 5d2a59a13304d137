package main

import (
	"context"
	"errors"
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
