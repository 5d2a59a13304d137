package operator

import (
	"context"
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

const fallbackName = "gatehouse-fallback"

// nameRulesMax bounds the policies that it speaks of: the API server bounds what one
// such policy may cost. Those beyond are left to the webhook.
const nameRulesMax = 20

// Fallback is what of the policies the API server can judge by itself: names of
// images, and whether they have a digest. It holds while nobody else answers. Each list
// is of globs as policies have them.
type Fallback struct {
	// Open: images that no policy picks may run; else Allow says which may.
	Open  bool
	Allow []string
	// Names are what single policies say.
	Names []NameRule
	// Keep leaves what is in the cluster: the policies are not known whole.
	Keep bool
}

// NameRule is what a policy says of images that one of the globs Images speaks of: Deny
// may not run, where Allow is not empty only those of it may, and with Digest only by
// digest.
type NameRule struct {
	Policy              string
	Images, Deny, Allow []string
	Digest              bool
}

func (f Fallback) empty() bool { return f.Open && len(f.Names) == 0 }

// fallback keeps the ValidatingAdmissionPolicy and its binding.
func (k *Keeper) fallback(ctx context.Context) error {
	if k.o.Fallback == nil {
		return nil
	}
	f, err := k.o.Fallback(ctx)
	if err != nil || f.Keep {
		return err
	}
	if f.empty() {
		if err := k.remove(ctx, bindings, fallbackName); err != nil {
			return err
		}
		return k.remove(ctx, fallbacks, fallbackName)
	}
	w := Webhook{}
	if k.o.Webhook != nil {
		w = *k.o.Webhook
	}
	selector, err := w.namespaces(k.o.Namespace)
	if err != nil {
		return err
	}
	if err := k.apply(ctx, fallbacks, f.policy(selector)); err != nil {
		return err
	}
	return k.apply(ctx, bindings, object(bindings, "ValidatingAdmissionPolicyBinding", "", fallbackName, map[string]any{
		"spec": map[string]any{"policyName": fallbackName, "validationActions": []any{"Deny"}},
	}))
}

// policy is the ValidatingAdmissionPolicy. An image that ran before goes on: an object
// must be able to change otherwise, and to go.
func (f Fallback) policy(selector map[string]any) *kube.Object {
	var validations []any
	say := func(holds, why string) {
		validations = append(validations, map[string]any{
			"expression": "variables.images.all(i, i in variables.before || " + holds + ")",
			"messageExpression": `"gatehouse fallback: " + variables.images.filter(i, !(i in variables.before) && !(` + holds + `)).join(", ") + " ` + why +
				`; this policy is made of Gatehouse's and holds while it does not answer, too"`,
			"reason": "Forbidden",
		})
	}
	if !f.Open {
		say(matches(f.Allow), "is named by no policy")
	}
	for _, r := range f.Names[:min(len(f.Names), nameRulesMax)] {
		others := "!" + matches(r.Images) + " || "
		by := " (" + r.Policy + ")" // a name of Kubernetes, which needs no escaping
		if len(r.Deny) > 0 {
			say("("+others+"!"+matches(r.Deny)+")", "is denied by name"+by)
		}
		if len(r.Allow) > 0 {
			say("("+others+matches(r.Allow)+")", "is of no registry that is trusted"+by)
		}
		if r.Digest {
			say("("+others+`i.contains("@"))`, "must be given by its digest"+by)
		}
	}
	variable := func(name, expression string) any {
		return map[string]any{"name": name, "expression": expression}
	}
	return object(fallbacks, "ValidatingAdmissionPolicy", "", fallbackName, map[string]any{"spec": map[string]any{
		"failurePolicy": "Fail",
		"matchConstraints": map[string]any{
			"namespaceSelector": selector, "matchPolicy": "Equivalent",
			"resourceRules": []any{map[string]any{
				"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "operations": []any{"CREATE", "UPDATE"},
				"resources": []any{"pods", "pods/ephemeralcontainers"}, "scope": "Namespaced",
			}},
		},
		"variables": []any{
			variable("images", imagesOf("object")),
			variable("before", "oldObject == null ? [] : "+imagesOf("oldObject")),
		},
		"validations": validations,
	}})
}

// imagesOf lists, in CEL, all images of a Pod. A container without one has the empty
// name, which nothing allows.
func imagesOf(pod string) string {
	var parts []string
	for _, list := range []string{"containers", "initContainers", "ephemeralContainers"} {
		at := pod + ".spec." + list
		parts = append(parts, "(has("+at+") ? "+at+`.map(c, has(c.image) ? c.image : "") : [])`)
	}
	at := pod + ".spec.volumes"
	parts = append(parts, "(has("+at+") ? "+at+`.filter(v, has(v.image) && has(v.image.reference)).map(v, v.image.reference) : [])`)
	return "(" + strings.Join(parts, " + ") + ")"
}

// matches says, in CEL, that one of globs speaks of the image i: of its full name, or
// of what is written. CEL has no names for steps on the way, but lists of one.
func matches(globs []string) string {
	if len(globs) == 0 {
		return "false"
	}
	patterns := make([]string, len(globs))
	for n, g := range globs {
		patterns[n] = pattern(g)
	}
	re := "r'^(?:" + strings.Join(patterns, "|") + ")$'"
	return "(i.matches(" + re + ") || " + fullName + ".exists(f, f.matches(" + re + ")))"
}

// fullName is the full name of the image i as a list of one: the registry, which is
// index.docker.io where there is none, the repository, and the digest, else the tag.
var fullName = strings.Join([]string{
	`[i.split("@")[0]]`, // without the digest
	// The repository, and what follows it.
	`.map(b, [b.matches(":[^/]+$") ? b.substring(0, b.lastIndexOf(":")) : b, i.contains("@") ? "@" + i.split("@")[1] : b.matches(":[^/]+$") ? b.substring(b.lastIndexOf(":")) : ":latest"])`,
	// The registry, the rest of the repository, and what follows it.
	`.map(p, p[0].contains("/") && (p[0].split("/")[0].matches("[.:]") || p[0].split("/")[0] == "localhost")`,
	` ? [p[0].split("/")[0].lowerAscii(), p[0].substring(p[0].indexOf("/") + 1), p[1]] : ["docker.io", p[0], p[1]])`,
	`.map(p, p[0] == "docker.io" || p[0] == "index.docker.io" ? "index.docker.io/" + (p[1].contains("/") ? p[1] : "library/" + p[1]) + p[2] : p[0] + "/" + p[1] + p[2])`,
}, "")

// pattern is a glob as a regular expression. It is what decide/glob makes of it; the
// test compares the two through the API server.
func pattern(glob string) string {
	switch glob {
	case "*":
		glob = "index.docker.io/library/*"
	case "*/*":
		glob = "index.docker.io/*/*"
	}
	return strings.NewReplacer(".", `\.`, "**", ".*", "*", "[^/]*").Replace(glob)
}
