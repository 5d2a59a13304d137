package operator

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

var (
	pods        = kube.Resource{Version: "v1", Resource: "pods"}
	events      = kube.Resource{Version: "v1", Resource: "events"}
	reportKinds = []reportKind{
		{kube.Resource{Group: "wgpolicyk8s.io", Version: "v1alpha2", Resource: "policyreports"}, "PolicyReport", false},
		{kube.Resource{Group: "openreports.io", Version: "v1alpha1", Resource: "reports"}, "Report", true},
	}
)

// reportKind is a kind of reports. ourSource: the report says as a whole who made it.
type reportKind struct {
	resource  kube.Resource
	kind      string
	ourSource bool
}

// Pods is what is known of the Pods of the cluster. Make it with [View.Pods], then call
// Run once.
type Pods struct{ watch *kube.Watch }

// Pods prepares a watch of all Pods, of each of which only what keep makes of it is kept;
// see [kube.Selection]. changed is told of every change; it must not wait.
func (v *View) Pods(keep func(*kube.Object) kube.Kept, changed func()) (*Pods, error) {
	w, err := v.o.Client.Watch(kube.Selection{Resource: pods, Keep: keep}, changed)
	return &Pods{w}, err
}

// Run watches until ctx ends.
func (p *Pods) Run(ctx context.Context) { p.watch.Run(ctx) }

// Kept returns what is kept of all Pods. CodeUnavailable, CodeDenied: they are not known
// whole yet.
func (p *Pods) Kept() ([]kube.Kept, error) {
	if !p.watch.Synced() {
		return nil, notSynced(p.watch)
	}
	return p.watch.Kept(), nil
}

// Complain logs a failure of what key does once, until it is over (err is nil).
func (v *View) Complain(ctx context.Context, key string, err error) { v.complain(ctx, key, err) }

// serves reports whether the cluster serves a custom resource.
func (v *View) serves(r kube.Resource) bool {
	for _, d := range v.crds.List() {
		if group, plural, versions := served(d); group == r.Group && plural == r.Resource {
			for _, version := range versions {
				if version == r.Version {
					return true
				}
			}
		}
	}
	return false
}

// labelReport marks our reports: the name of what they are about.
const labelReport = "gatehouse.dev/report"

// Reports writes reports into the cluster, one per namespace and kind that it serves:
// PolicyReports and those of openreports.io. It is not safe for concurrent use.
type Reports struct {
	view  *View
	name  string
	owner *Keeper
	there map[reportKey]gatehouse.Digest // of the content; empty: another
	read  map[string]bool                // kinds whose reports have been looked for
}

type reportKey struct{ kind, namespace string }

// Reports prepares to write reports of a name. owner is as in KeeperOptions.
func (v *View) Reports(name, owner string) *Reports {
	r := &Reports{view: v, name: name, owner: &Keeper{o: KeeperOptions{Client: v.o.Client, View: v, Owner: owner}}}
	r.Forget()
	return r
}

// Forget has the cluster asked again what is there.
func (r *Reports) Forget() { r.there, r.read = map[reportKey]gatehouse.Digest{}, map[string]bool{} }

// Served names the kinds that can be written now.
func (r *Reports) Served() (kinds string) {
	for _, k := range reportKinds {
		if r.view.serves(k.resource) {
			kinds += k.kind + " "
		}
	}
	return kinds
}

// annotationContent is the digest of what a report was made to say, so that an unchanged
// one is not written again, by whichever replica.
const annotationContent = "gatehouse.dev/content"

// contentOf is the digest of what a report says: all but its metadata.
func contentOf(o *kube.Object) (gatehouse.Digest, error) {
	says := maps.Clone(o.Object)
	delete(says, "metadata")
	b, err := json.Marshal(says)
	return gatehouse.DigestOf(b), err
}

// Write makes the reports of a namespace have body; nil: there is none. What is so
// already costs no request. Errors: those of the cluster; the rest is tried nevertheless.
func (r *Reports) Write(ctx context.Context, namespace string, body map[string]any) (err error) {
	for _, k := range reportKinds {
		if !r.view.serves(k.resource) {
			delete(r.read, k.kind) // it may come back without them
			continue
		}
		if one := r.write(ctx, k, namespace, body); one != nil {
			err = one
		}
	}
	return err
}

// Namespaces lists where there are reports of ours.
func (r *Reports) Namespaces(ctx context.Context) (out []string, err error) {
	for _, k := range reportKinds {
		if r.view.serves(k.resource) {
			if one := r.look(ctx, k); one != nil {
				err = one
			}
		}
	}
	for key := range r.there {
		out = append(out, key.namespace)
	}
	return out, err
}

// look asks once which reports of a kind there are.
func (r *Reports) look(ctx context.Context, k reportKind) error {
	if r.read[k.kind] {
		return nil
	}
	err := r.view.o.Client.List(ctx, k.resource, labelReport+"="+r.name, func(o *kube.Object) {
		if o.GetName() != r.name || !ours(o) {
			return
		}
		// Who may write in a namespace may have changed what is said there.
		content := gatehouse.Digest(o.GetAnnotations()[annotationContent])
		if says, err := contentOf(o); err != nil || says != content {
			content = ""
		}
		r.there[reportKey{k.kind, o.GetNamespace()}] = content
	})
	r.read[k.kind] = err == nil
	return err
}

func (r *Reports) write(ctx context.Context, k reportKind, namespace string, body map[string]any) error {
	if err := r.look(ctx, k); err != nil {
		return err
	}
	key := reportKey{k.kind, namespace}
	before, there := r.there[key]
	if body == nil {
		if !there {
			return nil
		}
		err := r.view.o.Client.Delete(ctx, k.resource, namespace, r.name)
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			err = nil
		}
		if err == nil {
			delete(r.there, key)
		}
		return err
	}
	o := object(k.resource, k.kind, namespace, r.name, body)
	if k.ourSource {
		o.Object["source"] = managedByUs
	}
	content, err := contentOf(o)
	if err != nil {
		return err
	}
	if there && before == content {
		return nil
	}
	o.SetLabels(map[string]string{labelManaged: managedByUs, labelReport: r.name})
	o.SetAnnotations(map[string]string{annotationContent: string(content)})
	if err := r.owner.own(ctx, o); err != nil {
		return err
	}
	_, err = r.view.o.Client.Apply(ctx, k.resource, o)
	switch gatehouse.CodeOf(err) {
	case "":
		r.there[key] = content
	case gatehouse.CodeNotFound:
		return nil // the namespace has gone
	}
	return err
}

// Tell makes an Event (v1). One of its name that is there is left as it is. Where the
// namespace has gone there is nobody to tell.
func (v *View) Tell(ctx context.Context, event map[string]any) error {
	_, err := v.o.Client.Create(ctx, events, &kube.Object{Object: event})
	switch gatehouse.CodeOf(err) {
	case gatehouse.CodeConflict, gatehouse.CodeNotFound:
		return nil
	}
	return err
}
