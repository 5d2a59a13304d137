// Package glob matches image names against the globs of policies. Its rules
// are those of Sigstore's policy-controller to the letter, so that a
// ClusterImagePolicy means here what it means there.
package glob

import (
	"regexp"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// hub is how policy-controller names Docker Hub.
const hub = "index.docker.io"

// LengthMax bounds a glob in bytes.
const LengthMax = 1024

var validGlob = regexp.MustCompile(`^[a-zA-Z0-9\-_:/*.@]+$`)

// Glob is a compiled glob. The zero Glob matches nothing.
type Glob struct {
	text string
	re   *regexp.Regexp
}

// Compile reads a glob: * stands for any run of characters without a slash, **
// for any run at all, everything else for itself; the whole name must match. A
// lone * is index.docker.io/library/*, and */* is index.docker.io/*/*.
// Errors: CodeInvalid.
func Compile(text string) (Glob, error) {
	if !validGlob.MatchString(text) || len(text) > LengthMax {
		return Glob{}, gatehouse.Errorf(gatehouse.CodeInvalid, "glob %q is invalid", clip(text)).
			WithHint("a glob holds letters, digits and - _ : / . @ and the wildcards * (no slash) and ** (anything)")
	}
	pattern := text
	switch text {
	case "*":
		pattern = hub + "/library/*"
	case "*/*":
		pattern = hub + "/*/*"
	}
	// One pass, and at each place the first pair that fits: ** before *.
	pattern = strings.NewReplacer(".", `\.`, "**", ".*", "*", "[^/]*").Replace(pattern)
	re, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		return Glob{}, gatehouse.Errorf(gatehouse.CodeInvalid, "glob %q is invalid: %w", clip(text), err)
	}
	return Glob{text: text, re: re}, nil
}

// String returns the glob as written.
func (g Glob) String() string { return g.text }

// Match reports whether the image reference, as an object has it, is one that
// g speaks of. A malformed reference matches nothing.
func (g Glob) Match(written string) bool { return AnyMatch([]Glob{g}, written) }

// MatchName reports whether g speaks of a full name, in the form that [FullName] has.
// Unlike Match it does not look at what was written.
func (g Glob) MatchName(full string) bool { return g.re != nil && g.re.MatchString(full) }

// AnyMatch reports whether one of globs speaks of the reference. The full name
// is tried first ("index.docker.io/library/nginx:latest"; with a digest, the
// tag is not part of it), then the text as written.
func AnyMatch(globs []Glob, written string) bool {
	ref, err := gatehouse.ParseRef(written)
	if err != nil {
		return false
	}
	full := FullName(ref)
	for _, g := range globs {
		if g.re != nil && (g.re.MatchString(full) || g.re.MatchString(written)) {
			return true
		}
	}
	return false
}

// FullName is the name that globs are written for: repository:tag, or
// repository@digest for a reference with a digest.
func FullName(ref gatehouse.Ref) string {
	registry := ref.Registry
	if registry == "docker.io" {
		registry = hub
	}
	name := registry + "/" + string(ref.Repo)
	if ref.Digest != "" {
		return name + "@" + string(ref.Digest)
	}
	return name + ":" + ref.Tag
}

func clip(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
