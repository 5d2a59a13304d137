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

// judge says what is wrong with a name, or that a list allows it. A name that does not
// parse is the decision's to deny.
func (n naming) judge(written, operation string) (reasons []gatehouse.Reason) {
	ref, err := gatehouse.ParseRef(written)
	if err != nil || !n.given() {
		return nil
	}
	full := glob.FullName(ref)
	if g, ok := n.denied(ref, full, written); ok {
		reasons = append(reasons, gatehouse.Reason{
			Code: decide.CodeRegistryDenied, Message: fmt.Sprintf("%s is denied by the rule: %s", short(full), g),
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

// denied looks at every name that the image goes by: also at the tag that stands
// beside a digest, and at the plain spelling of its registry.
func (n naming) denied(ref gatehouse.Ref, full, written string) (glob.Glob, bool) {
	all := []string{full, written}
	plain := ref
	plain.Registry = gatehouse.SameRegistry(ref.Registry)
	all = append(all, glob.FullName(plain))
	if ref.Digest != "" && ref.Tag != "" {
		ref.Digest, plain.Digest = "", ""
		all = append(all, glob.FullName(ref), glob.FullName(plain))
	}
	for _, name := range all {
		if g, ok := anyName(n.deny, name); ok {
			return g, true
		}
	}
	return glob.Glob{}, false
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
