package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/operator"
)

// cluster is what the settings say of requests of a cluster.
type cluster struct {
	mutate    string              // pods, all, off
	exempt    []string            // namespaces
	templates map[string][]string // paths by KIND.GROUP
}

// clusterOf reads the settings. Errors: CodeInvalid.
func clusterOf(cfg config.Config) (c cluster, err error) {
	c = cluster{mutate: cfg.AdmissionMutate, templates: map[string][]string{}}
	if c.exempt, err = exemptOf(cfg); err != nil {
		return c, err
	}
	for _, entry := range cfg.AdmissionTemplates {
		kind, path, ok := strings.Cut(entry, "=")
		name, group, qualified := strings.Cut(kind, ".")
		if !ok || !qualified || name == "" || group == "" {
			return c, gatehouse.Errorf(gatehouse.CodeInvalid, "admission-templates: %q is not KIND.GROUP=PATH", entry).
				WithHint("for example Fleet.example.com=spec.groups[*].template")
		}
		if _, err := workload.ParsePath(path); err != nil {
			return c, gatehouse.Errorf(gatehouse.CodeInvalid, "admission-templates: %w", err).WithHint("%s", gatehouse.HintOf(err))
		}
		c.templates[kind] = append(c.templates[kind], path)
	}
	return c, nil
}

// exemptOf lists the namespaces whose objects are not judged: those of the settings,
// and, where there is a cluster, our own and that of the webhook's Service: what answers
// must be able to start. Errors: CodeInvalid.
func exemptOf(cfg config.Config) ([]string, error) {
	if cfg.Kubeconfig == "" {
		return cfg.AdmissionExemptNamespaces, nil
	}
	home, err := homeOf(cfg)
	if err != nil {
		return nil, err
	}
	out := append(slices.Clone(cfg.AdmissionExemptNamespaces), home)
	service, err := cfg.Service()
	if service.Namespace != "" {
		out = append(out, service.Namespace)
	}
	return out, err
}

// exempts reports whether a request is about an object of a namespace that is not
// judged. A pull has no object.
func (c cluster) exempts(req gatehouse.Request) bool {
	return len(req.Object) > 0 && req.Namespace != "" && slices.Contains(c.exempt, req.Namespace)
}

// letThrough is the set of one policy that judges nothing, and says why.
func letThrough(name, code, message string) decide.PolicySet {
	return decide.PolicySet{Complete: true, NoMatch: gatehouse.Allow, Policies: []decide.Policy{unjudging{name, code, message}}}
}

type unjudging struct{ name, code, message string }

// Name implements decide.Policy.
func (p unjudging) Name() string { return p.name }

// Needs implements decide.Policy.
func (unjudging) Needs(gatehouse.Request) []gatehouse.Need { return nil }

// Judge implements decide.Policy.
func (p unjudging) Judge(context.Context, gatehouse.Request) decide.Judgement {
	return decide.Judgement{Outcome: decide.Passed, Reasons: []gatehouse.Reason{{Verdict: gatehouse.Allow, Code: p.code, Message: p.message}}}
}

// Pin implements admit.Pinner: the tags that policies judge by digest, with the
// digest that they have now. What cannot be resolved is not among them.
func (d *decider) Pin(ctx context.Context, req gatehouse.Request) ([]admit.Pin, error) {
	pod := req.Kind.Kind == "Pod" && req.Kind.Group == ""
	if d.cluster.mutate == "off" || d.cluster.mutate != "all" && !pod || d.cluster.exempts(req) {
		return nil, nil
	}
	req.Templates = d.cluster.templates[req.Kind.Kind+"."+req.Kind.Group]
	set, _, err := d.policies.latest(ctx)
	if err != nil {
		d.log.ErrorContext(ctx, "read policies failed", "error", err)
	}
	if !set.Complete {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the policy set is not complete: %s", cmp.Or(set.Lacks, "a policy could not be read"))
	}
	req.Images = set.Images(req)
	list := set.Pins(req)
	if len(list) == 0 {
		return nil, nil
	}
	known := gather.Facts(ctx, pinning{set, list}, req, d.facts.live())
	var pins []admit.Pin
	for _, i := range list {
		f := known.Images[i]
		for _, err := range f.Failed {
			if err != nil && err.Code == gatehouse.CodeInternal {
				d.log.ErrorContext(ctx, "resolve failed", "image", f.Written, "error", err)
			}
		}
		if f.Image.Digest != "" && len(f.Failed) == 0 {
			pins = append(pins, admit.Pin{Field: f.Field, Written: f.Written, Image: pinned(f.Written, f.Image)})
		}
	}
	return pins, nil
}

// pinned is a reference as it was written, with the tag that was meant and the
// digest.
func pinned(written string, ref gatehouse.Ref) string {
	if !strings.HasSuffix(written, ":"+ref.Tag) {
		written += ":" + ref.Tag
	}
	return written + "@" + string(ref.Digest)
}

// pinning asks for the digests of some images.
type pinning struct {
	decide.PolicySet
	images []int
}

// Needs implements gather.Policies.
func (p pinning) Needs(gatehouse.Request) []gatehouse.Need {
	var needs []gatehouse.Need
	for _, i := range p.images {
		needs = append(needs, gatehouse.Need{Name: "pin", Image: i, Kind: gatehouse.NeedDigest})
	}
	return needs
}

// Refused implements gather.Policies: whether the object would be refused whatever
// its tags resolve to, so that nothing is asked about it. A rule that wants digests
// must not count what is about to be written as missing.
func (p pinning) Refused(ctx context.Context, req gatehouse.Request) bool {
	obj, err := workload.Decode(req.Object)
	if err != nil {
		return true
	}
	images := map[string]string{}
	for _, i := range p.images {
		ref := req.Images[i].Image
		ref.Digest = gatehouse.DigestOf(nil)
		images[req.Images[i].Field] = pinned(req.Images[i].Written, ref)
	}
	req.Object, err = json.Marshal(workload.SetImages(obj, images))
	if err != nil {
		return true
	}
	req.Images = p.Images(req)
	return p.PolicySet.Refused(ctx, req)
}

// policyGroups are the API groups of policies: of all kinds that are read from a cluster.
var policyGroups = func() (groups []string) {
	for _, k := range PolicyKinds() {
		groups = append(groups, k.Group)
	}
	return slices.Compact(groups)
}()

// isPolicy reports whether a request puts a policy into the cluster.
func isPolicy(req gatehouse.Request) bool {
	return slices.Contains(policyGroups, req.Kind.Group) && req.SubResource == "" && (req.Operation == "CREATE" || req.Operation == "UPDATE")
}

// objections are why a policy that is put into the cluster would not load beside the
// others.
func (p *policies) objections(ctx context.Context, req gatehouse.Request) []gatehouse.Reason {
	deny := func(message, hint string) gatehouse.Reason {
		return gatehouse.Reason{Verdict: gatehouse.Deny, Code: decide.CodePolicyInvalid, Message: message, Hint: hint}
	}
	name, source, err := policyDocument(req.Object)
	if err != nil {
		return []gatehouse.Reason{deny(err.Error(), gatehouse.HintOf(err))}
	}
	var docs []db.Policy
	err = p.db.Get(ctx, func(tx *db.Tx) (err error) {
		docs, _, err = p.documents(ctx, tx)
		return err
	})
	if err != nil {
		return []gatehouse.Reason{deny("the policies that are in force cannot be read", "try again")}
	}
	path := operator.DocumentPath(req.Kind.Group, req.Kind.Kind, name)
	refusal, warnings := load.Refusal(p.loader().Check(path, source, p.with(docs, path, nil)))
	var out []gatehouse.Reason
	if refusal != "" {
		// A status is one line: what stood on lines of its own is told apart all the same.
		refusal = strings.ReplaceAll(refusal, "\n", "; ")
		out = append(out, deny(refusal, "gatehouse policy lint says the same of a file, and gatehouse policy fix repairs what can be repaired"))
	}
	for _, w := range warnings[:min(len(warnings), problemsMax)] {
		out = append(out, gatehouse.Reason{Verdict: gatehouse.Warn, Code: decide.CodePolicyInvalid, Message: w})
	}
	return out
}

// policyDocument is the document that a person would have written for an object of
// the cluster: without what the cluster adds.
func policyDocument(object []byte) (name string, source []byte, err error) {
	obj, err := workload.Decode(object)
	if err != nil {
		return "", nil, err
	}
	meta, ok := obj["metadata"].(map[string]any)
	if !ok {
		return "", nil, errors.New("the object has no metadata")
	}
	kept := map[string]any{}
	for _, key := range []string{"name", "namespace", "labels", "annotations"} {
		if v, ok := meta[key]; ok {
			kept[key] = v
		}
	}
	name, _ = meta["name"].(string)
	delete(obj, "status")
	obj["metadata"] = kept
	source, err = json.Marshal(obj)
	if err != nil {
		return "", nil, fmt.Errorf("couldn't encode the object: %w", err)
	}
	return name, source, nil
}
