package rule

import (
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
)

// naming is what a rule wants of the names of images. It is judged by what is written
// in the object, before anything is looked up.
type naming struct {
	allow, deny []glob.Glob
	digest      bool // the name has to hold the digest
}

func (n naming) given() bool { return len(n.allow) > 0 || len(n.deny) > 0 || n.digest }

// pullOperation is that of a pull, whose client has found the digest already.
const pullOperation = "PULL"

// judge says what is wrong with the name of an image, or that a list allows it. A name
// that does not parse is the decision's to deny.
func (n naming) judge(f gatehouse.ImageFacts, operation string) (reasons []gatehouse.Reason) {
	written := f.Written
	ref, err := gatehouse.ParseRef(written)
	if err != nil || !n.given() {
		return nil
	}
	full := glob.FullName(ref)
	if name, g, ok := n.denied(f); ok {
		what := short(full)
		if name != written {
			what += ", which is " + short(name) + ","
		}
		reasons = append(reasons, gatehouse.Reason{
			Code: decide.CodeRegistryDenied, Message: fmt.Sprintf("%s is denied by the rule: %s", what, g),
			Hint: "use an image of another registry or repository",
		})
	}
	if g, ok := anyName(n.allow, full); ok {
		reasons = append(reasons, gatehouse.Reason{Verdict: gatehouse.Allow, Code: decide.CodeRegistryTrusted, Message: "the rule trusts " + g.String()})
	} else if len(n.allow) > 0 {
		reasons = append(reasons, gatehouse.Reason{
			Code: decide.CodeRegistryUntrusted, Message: short(full) + " is of no registry that the rule trusts",
			Hint: "the rule trusts " + n.trusted() + implied(ref, written),
		})
	}
	if n.digest && ref.Digest == "" && operation != pullOperation {
		reasons = append(reasons, gatehouse.Reason{
			Code: decide.CodeDigestMissing, Message: "the image is named by the tag " + ref.Tag + ", which may come to name another one",
			Hint: "write " + short(ref.Name()) + ":" + ref.Tag + "@sha256:…",
		})
	}
	return reasons
}

// denied looks at every name that an image goes by: as it is written, by the other names
// of its registry, each also with the tag that stands beside a digest and by the plain
// spelling of its registry. name is the one that is denied.
func (n naming) denied(f gatehouse.ImageFacts) (name string, by glob.Glob, ok bool) {
	if len(n.deny) == 0 {
		return "", by, false
	}
	for _, name := range append([]string{f.Written}, f.Also...) {
		forms := []string{name}
		if ref, err := gatehouse.ParseRef(name); err == nil {
			plain := ref
			plain.Registry = gatehouse.SameRegistry(ref.Registry)
			for _, r := range []gatehouse.Ref{ref, plain} {
				forms = append(forms, glob.FullName(r))
				if r.Digest != "" && r.Tag != "" {
					r.Digest = ""
					forms = append(forms, glob.FullName(r))
				}
			}
		}
		for _, form := range forms {
			if g, ok := anyName(n.deny, form); ok {
				return name, g, true
			}
		}
	}
	return "", by, false
}

func anyName(globs []glob.Glob, name string) (glob.Glob, bool) {
	for _, g := range globs {
		if g.MatchName(name) {
			return g, true
		}
	}
	return glob.Glob{}, false
}

func (n naming) trusted() string {
	list := make([]string, len(n.allow))
	for i, g := range n.allow {
		list[i] = g.String()
	}
	return names(list)
}

// implied explains a registry that was not written.
func implied(ref gatehouse.Ref, written string) string {
	if ref.Registry != "docker.io" || strings.HasPrefix(written, "docker.io/") || strings.HasPrefix(written, "index.docker.io/") {
		return ""
	}
	return "; a name without a registry is one of Docker Hub, index.docker.io"
}

// registryGlob reads an entry of a list of registries: a glob for names of images, or a
// registry alone (no slash), which is all of its images.
func registryGlob(text string) (glob.Glob, error) {
	pattern := text
	host, port, _ := strings.Cut(text, ":")
	if !strings.Contains(text, "/") && host != "" && strings.Trim(port, "0123456789") == "" {
		pattern = strings.ToLower(text) + "/**"
	}
	if rest, ok := strings.CutPrefix(pattern, "docker.io/"); ok {
		pattern = "index.docker.io/" + rest
	}
	return glob.Compile(pattern)
}

// plainGlob is g with the plain spelling of the registry that it begins with:
// ghcr.io/** for ghcr.io:443/**. ok is false where it has that spelling, or no name
// that could be told.
func plainGlob(g glob.Glob) (glob.Glob, bool) {
	host, rest, ok := strings.Cut(g.String(), "/")
	if !ok || strings.Contains(host, "*") || !strings.ContainsAny(host, ".:") {
		return g, false
	}
	plain := gatehouse.SameRegistry(host)
	if plain == "docker.io" {
		plain = "index.docker.io"
	}
	if plain == host {
		return g, false
	}
	out, err := glob.Compile(plain + "/" + rest)
	return out, err == nil
}
