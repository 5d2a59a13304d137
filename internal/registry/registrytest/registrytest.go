// Package registrytest is the conformance suite of the registry, by requirement:
// each case is named after its clause of the distribution-spec and written as a
// script of requests and expectations in testdata. Any server that speaks the
// protocol can be put under it.
//
// The language of the scripts, one statement per line:
//
//	=== TITLE                    a case; $repo and $repo2 are its own repositories
//	# COMMENT
//	blob NAME TEXT               bytes; $NAME.digest, .hex, .sha512 and .size tell of them
//	zeros NAME N                 N bytes of zero
//	manifest NAME JSON           bytes as well, with $variables inside; goes on in indented lines
//	push REPO $NAME              uploads a blob
//	image NAME REPO REFERENCE    pushes a small image of its own; $NAME is its manifest
//	METHOD URL                   a request; indented lines under it are
//	    Header: value            … a header
//	    body $NAME               … the body, or a part of it: body $NAME 0 10
//	    chunked                  … sent without Content-Length
//	    as USER                  … by somebody else than admin; "nobody" has no credentials
//	code == N                    expectations of the last answer:
//	header NAME == VALUE, header NAME ~ REGEXP, header NAME absent
//	body == $NAME, body ~ REGEXP
//	json PATH == JSON            a value inside a JSON body, path like errors.0.code
//	error CODE                   the spec's error document with this code
//	set NAME header NAME         keeps a header as $NAME
//
// Every request must be followed by a code.
package registrytest

import (
	"embed"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"testing"
)

//go:embed testdata/*.txt
var scripts embed.FS

// Target is a running registry.
type Target struct {
	URL       string // without a path
	Client    *http.Client
	Passwords map[string]string // by user: "admin" may do everything, "reader" may read
}

// Run puts target under all scripts and all lifecycles. For another database or
// another store of blobs that is one line: Run(t, target of it).
func Run(t *testing.T, target Target) {
	names, err := fs.Glob(scripts, "testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range names {
		text, err := scripts.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(path.Base(name), ".txt"), func(t *testing.T) {
			RunScript(t, target, name, string(text))
		})
	}
	t.Run("lifecycle", func(t *testing.T) { runLifecycles(t, target) })
}

// RunScript runs the cases of one script.
func RunScript(t *testing.T, target Target, name, text string) {
	cases, err := parseScript(name, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.title, func(t *testing.T) {
			s := newState(t, target)
			for _, st := range c.statements {
				s.line = st.line
				s.run(st)
			}
			s.done()
		})
	}
}
