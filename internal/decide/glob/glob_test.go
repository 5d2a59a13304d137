package glob_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
)

const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// cases: image, glob, match. One line per case.
const cases = `
alpine                                index.docker.io/library/alpine:latest    yes
alpine                                index.docker.io/library/alpine:*         yes
alpine                                index.docker.io/library/*                yes
alpine                                index.docker.io/*/*                      yes
alpine                                index.docker.io/*                        no
alpine                                *                                        yes
alpine                                */*                                      yes
alpine                                alp*                                     yes
alpine                                **                                       yes
alpine                                *:latest                                 no
alpine                                docker.io/library/alpine:latest          no
docker.io/library/alpine              index.docker.io/library/alpine:latest    yes
docker.io/library/alpine              docker.io/library/alpine                 yes
docker.io/alpine                      index.docker.io/library/alpine:latest    yes
index.docker.io/library/alpine:3      index.docker.io/library/alpine:3         yes
team/app                              index.docker.io/team/app:latest          yes
team/app                              */*                                      yes
team/app                              *                                        no
team/app                              team/app                                 yes
reg.example/prod/app:v1               reg.example/prod/**                      yes
reg.example/prod/app:v1               reg.example/prod/*                       yes
reg.example/prod/a/b:v1               reg.example/prod/*                       no
reg.example/prod/a/b:v1               reg.example/prod/**                      yes
reg.example/prod/a/b:v1               reg.example/**/b:v1                      yes
reg.example/prod/app:v1               reg.example/prod/app                     no
reg.example/prod/app                  reg.example/prod/app                     yes
reg.example/prod/app                  reg.example/prod/app:latest              yes
reg.example/prod                      reg.example/prod/**                      no
reg.example/production-x/app          reg.example/production/**                no
evil.net/reg.example/prod/app         reg.example/prod/**                      no
reg.example.evil.net/prod/app         reg.example/prod/**                      no
regxexample/prod/app                  reg.example/prod/**                      no
reg.example:5000/prod/app             reg.example/prod/**                      no
reg.example:5000/prod/app             reg.example:5000/prod/**                 yes
reg.example:5000/prod/app             reg.example:*/prod/app:latest            yes
reg.example/prod/app@DIGEST           reg.example/prod/app@sha256:*            yes
reg.example/prod/app:v1@DIGEST        reg.example/prod/app:v1                  no
reg.example/prod/app:v1@DIGEST        reg.example/prod/app@DIGEST              yes
reg.example/prod/app:v1@DIGEST        reg.example/prod/app:v1@**               yes
reg.example/prod/app:v1@DIGEST        reg.example/prod/app**                   yes
[::1]:5000/prod/app                   **/prod/app:latest                       yes
invalid&name                          **                                       no
Prod/App                              **                                       no
`

func TestMatch(t *testing.T) {
	n := 0
	for line := range strings.Lines(cases) {
		f := strings.Fields(strings.ReplaceAll(line, "DIGEST", digest))
		if len(f) == 0 {
			continue
		}
		n++
		g, err := glob.Compile(f[1])
		if err != nil {
			t.Errorf("%s: %v", f[1], err)
			continue
		}
		if got, want := g.Match(f[0]), f[2] == "yes"; got != want {
			t.Errorf("image %s, glob %s: match = %v, want %v", f[0], f[1], got, want)
		}
	}
	if n < 40 {
		t.Fatalf("read only %d cases", n)
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, text := range []string{"", ".+", "[a-z]*", "a b", "a#b", "a?", "{a,b}", `a\b`, "a\n", strings.Repeat("a", glob.LengthMax+1)} {
		if _, err := glob.Compile(text); err == nil {
			t.Errorf("Compile(%q) succeeded", text)
		}
	}
}

func TestZeroGlobMatchesNothing(t *testing.T) {
	if (glob.Glob{}).Match("alpine") {
		t.Error("the zero Glob matches")
	}
}

func FuzzMatch(f *testing.F) {
	for line := range strings.Lines(cases) {
		if c := strings.Fields(line); len(c) == 3 {
			f.Add(c[1], c[0])
		}
	}
	all, err := glob.Compile("**")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, image string) {
		g, err := glob.Compile(text)
		if err != nil {
			return
		}
		if g.Match(image) && !all.Match(image) {
			t.Errorf("%q matches %q, ** does not", text, image)
		}
		// A glob without wildcards matches nothing but itself in full or as written.
		if !strings.Contains(text, "*") && g.Match(image) && image != text && !strings.Contains(text, "/") {
			t.Errorf("%q matches %q", text, image)
		}
	})
}
