package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

const (
	// kindsMax bounds the kinds that are watched.
	kindsMax = 1_100
	// lostEvery is how often it is looked for what is not followed any more, and how long
	// that must have lasted to be told.
	lostEvery = 30 * time.Second
	// namespaceWait is how long a namespace that is not known yet may take.
	namespaceWait = 2 * time.Second
)

// PolicyKind is a kind of custom resource that holds policies.
type PolicyKind struct {
	Group    string
	Plural   string   // "*": every kind of the group
	Versions []string // that can be read, the best first
	// OursOnly leaves the kind alone where its definition was made by another program,
	// which then enforces it.
	OursOnly bool
}

// ViewOptions are what a View stands on.
type ViewOptions struct {
	Client    *kube.Client
	Namespace string // ours
	Kinds     []PolicyKind
	// CertificateOnly leaves Secrets and ConfigMaps alone but for the webhook's certificate:
	// an account that needs no more may see no more.
	CertificateOnly bool
	// Named lists what policies from elsewhere refer to in our namespace; nil: nothing.
	Named func() []Reference
	// Changed is told of every change; it must not wait long. Nil: nobody is.
	Changed func()
	Log     *slog.Logger
}

// View is what is known of the cluster. It stays as it was while the cluster is away.
// Make it with [NewView], then call Run once.
type View struct {
	o ViewOptions
	// asks is for what reviews ask: whoever makes many must not keep us from following
	// the cluster, and from the lease.
	asks       *kube.Client
	namespaces *kube.Watch
	crds       *kube.Watch
	secrets    *kube.Watch   // of our namespace
	configMaps *kube.Watch   // of our namespace
	regroup    chan struct{} // definitions changed, or what is looked up
	inventory  inventory

	mu    sync.Mutex
	wakes []chan struct{} // of those who follow
	kinds map[kube.Resource]*policyWatch
	said  map[string]bool // complaints that stand in the log
}

type policyWatch struct {
	*kube.Watch
	stop context.CancelFunc
}

// NewView prepares the watches.
func NewView(o ViewOptions) (*View, error) {
	only := ""
	if o.CertificateOnly {
		only = certificateSecret
	}
	asks, err := o.Client.Apart()
	if err != nil {
		return nil, err
	}
	v := &View{o: o, asks: asks, regroup: make(chan struct{}, 1), kinds: map[kube.Resource]*policyWatch{}, said: map[string]bool{}}
	for _, w := range []struct {
		to      **kube.Watch
		what    kube.Selection
		changed func()
	}{
		{&v.namespaces, kube.Selection{Resource: namespaces}, v.Wake},
		{&v.crds, kube.Selection{Resource: definitions, Trim: trimDefinition}, func() { poke(v.regroup); v.Wake() }},
		{&v.secrets, kube.Selection{Resource: secrets, Namespace: o.Namespace, Name: only, Trim: trimSecret}, v.Wake},
		{&v.configMaps, kube.Selection{Resource: configMaps, Namespace: o.Namespace, Name: only}, v.Wake},
	} {
		watch, err := o.Client.Watch(w.what, w.changed)
		if err != nil {
			return nil, err
		}
		*w.to = watch
	}
	return v, nil
}

// trimDefinition takes the schemas away, which are most of a definition.
func trimDefinition(o *kube.Object) {
	spec, _ := o.Object["spec"].(map[string]any)
	list, _ := spec["versions"].([]any)
	for _, item := range list {
		if version, ok := item.(map[string]any); ok {
			delete(version, "schema")
			delete(version, "additionalPrinterColumns")
		}
	}
	o.SetAnnotations(nil)
}

// foreignSecrets are types of Secrets that are others' own: large, and nothing that a
// policy could name.
var foreignSecrets = []string{"helm.sh/release.v1", "kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"}

func trimSecret(o *kube.Object) {
	if kind, _ := o.Object["type"].(string); slices.Contains(foreignSecrets, kind) {
		delete(o.Object, "data")
	}
	o.SetAnnotations(annotationsWithout(o, applied))
}

func annotationsWithout(o *kube.Object, name string) map[string]string {
	annotations := maps.Clone(o.GetAnnotations())
	delete(annotations, name)
	return annotations
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Wake tells all who follow the view that there is something to see.
func (v *View) Wake() {
	if v.o.Changed != nil {
		v.o.Changed()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range v.wakes {
		poke(c)
	}
}

// Follow returns a channel that is told when there is something to see.
func (v *View) Follow() <-chan struct{} {
	c := make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wakes = append(v.wakes, c)
	return c
}

// Run watches until ctx ends.
func (v *View) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, w := range []*kube.Watch{v.namespaces, v.crds, v.secrets, v.configMaps} {
		all.Go(func() { w.Run(ctx) })
	}
	tick := time.NewTicker(lostEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			all.Wait()
			return nil
		case <-tick.C:
			v.tellLost(ctx)
		case <-v.regroup:
			v.regroupWatches(ctx, &all)
			v.complain(ctx, "look up what policies ask for", v.regroupLookups(ctx, &all))
		}
	}
}

// tellLost logs what of the cluster is not followed any more, until it is again.
func (v *View) tellLost(ctx context.Context) {
	watches := []*kube.Watch{v.namespaces, v.crds, v.secrets, v.configMaps}
	v.mu.Lock()
	for _, w := range v.kinds {
		watches = append(watches, w.Watch)
	}
	v.mu.Unlock()
	v.inventory.mu.Lock()
	for _, w := range v.inventory.watches {
		watches = append(watches, w.Watch)
	}
	v.inventory.mu.Unlock()
	var first error // of what was never read: the rest most likely fails for the same reason
	for _, w := range watches {
		var err error
		switch lost := w.Lost() >= lostEvery; {
		case lost && w.Synced():
			err = w.Failure()
		case lost && first == nil:
			first = notSynced(w)
		}
		v.complain(ctx, "follow "+w.Resource().GroupResource().String(), err)
	}
	v.complain(ctx, "read the cluster", first)
}

// regroupWatches starts and ends watches of policies as their kinds come and go.
func (v *View) regroupWatches(ctx context.Context, all *sync.WaitGroup) {
	want := v.wanted()
	v.mu.Lock()
	defer v.mu.Unlock()
	for r, w := range v.kinds {
		if !slices.Contains(want, r) {
			w.stop()
			delete(v.kinds, r)
		}
	}
	for _, r := range want {
		if v.kinds[r] != nil {
			continue
		}
		w, err := v.o.Client.Watch(kube.Selection{Resource: r}, v.Wake)
		if err != nil {
			v.o.Log.ErrorContext(ctx, "watch failed", "resource", r.String(), "error", err)
			continue
		}
		within, stop := context.WithCancel(ctx)
		v.kinds[r] = &policyWatch{w, stop}
		all.Go(func() { w.Run(within) })
	}
}

// wanted lists the collections of policies that the cluster serves.
func (v *View) wanted() (out []kube.Resource) {
	for _, d := range v.crds.List() {
		group, plural, served := served(d)
		for _, k := range v.o.Kinds {
			if k.Group != group || k.Plural != "*" && k.Plural != plural || k.OursOnly && !ours(d) || len(out) >= kindsMax {
				continue
			}
			for _, version := range k.Versions {
				if slices.Contains(served, version) {
					out = append(out, kube.Resource{Group: group, Version: version, Resource: plural})
					break
				}
			}
		}
	}
	return out
}

// served reads a definition: its group, its plural and the versions that are served;
// none before it is established.
func served(d *kube.Object) (group, plural string, versions []string) {
	spec, _ := d.Object["spec"].(map[string]any)
	group, _ = spec["group"].(string)
	names, _ := spec["names"].(map[string]any)
	plural, _ = names["plural"].(string)
	status, _ := d.Object["status"].(map[string]any)
	conditions, _ := status["conditions"].([]any)
	established := slices.ContainsFunc(conditions, func(c any) bool {
		condition, _ := c.(map[string]any)
		return condition["type"] == "Established" && condition["status"] == "True"
	})
	list, _ := spec["versions"].([]any)
	for _, item := range list {
		version, _ := item.(map[string]any)
		name, _ := version["name"].(string)
		if on, _ := version["served"].(bool); on && established {
			versions = append(versions, name)
		}
	}
	return group, plural, versions
}

// whole tells why the view is not whole; nil: it is.
func (v *View) whole() error {
	for _, w := range []*kube.Watch{v.crds, v.secrets, v.configMaps} {
		if !w.Synced() {
			return notSynced(w)
		}
	}
	want := v.wanted()
	if len(want) >= kindsMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the cluster has more than %d kinds of policies", kindsMax)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range want {
		w := v.kinds[r]
		if w == nil {
			return unread{r, nil}
		}
		if !w.Synced() {
			return notSynced(w.Watch)
		}
	}
	return nil
}

// unread is why nothing can be done with a collection: it has not been read yet, or that
// failed.
type unread struct {
	what    kube.Resource
	failure error // nil: it comes by itself
}

func notSynced(w *kube.Watch) error { return unread{w.Resource(), w.Failure()} }

// Error implements error.
func (u unread) Error() string {
	if u.failure != nil {
		return u.failure.Error()
	}
	return "the cluster has not been read yet: " + u.what.Resource
}

// Unwrap gives the code.
func (u unread) Unwrap() error {
	if u.failure != nil {
		return u.failure
	}
	return errUnread
}

var errUnread = gatehouse.Errorf(gatehouse.CodeUnavailable, "the cluster has not been read yet")

// policies lists the objects of all kinds of policies.
func (v *View) policies() (out []*kube.Object) {
	for _, list := range v.byResource() {
		out = append(out, list...)
	}
	return out
}

// byResource lists the objects of each kind of policies.
func (v *View) byResource() map[kube.Resource][]*kube.Object {
	v.mu.Lock()
	all := maps.Clone(v.kinds)
	v.mu.Unlock()
	out := map[kube.Resource][]*kube.Object{}
	for r, w := range all {
		out[r] = w.List()
	}
	return out
}

// Namespace returns a namespace as JSON. One that is not known yet is asked for: its
// first Pod may come before the news of it. Errors: CodeNotFound, CodeUnavailable.
func (v *View) Namespace(ctx context.Context, name string) ([]byte, error) {
	if o := v.namespaces.Get("", name); o != nil {
		return json.Marshal(o.Object)
	}
	ctx, cancel := context.WithTimeout(ctx, namespaceWait)
	defer cancel()
	o, err := v.asks.Get(ctx, namespaces, "", name)
	if err != nil {
		return nil, err
	}
	o.SetManagedFields(nil)
	return json.Marshal(o.Object)
}

// Synced reports whether namespaces and everything else have been read once.
func (v *View) Synced() error {
	if !v.namespaces.Synced() {
		return notSynced(v.namespaces)
	}
	return v.whole()
}

// secret returns the data of a Secret of our namespace; nil where there is none.
func (v *View) secret(name string) map[string][]byte {
	o := v.secrets.Get(v.o.Namespace, name)
	if o == nil {
		return nil
	}
	return secretData(o)
}

func secretData(o *kube.Object) map[string][]byte {
	b, err := json.Marshal(o.Object["data"])
	if err != nil {
		return nil
	}
	var data map[string][]byte
	if json.Unmarshal(b, &data) != nil {
		return nil
	}
	return data
}

// complain logs a message once, until it is over. That something has not been read yet is
// none, and why it cannot be is one, however many wait for it: readiness says so, too.
func (v *View) complain(ctx context.Context, key string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if u := (unread{}); errors.As(err, &u) {
		if u.failure == nil {
			v.o.Log.DebugContext(ctx, key+" waits", "error", err)
			return
		}
		key, err = "read the cluster", u.failure
	}
	text := key + ": " + fmt.Sprint(err)
	if err == nil || v.said[text] {
		if err == nil {
			for said := range v.said {
				if strings.HasPrefix(said, key+": ") {
					delete(v.said, said)
				}
			}
		}
		return
	}
	if len(v.said) > kindsMax {
		clear(v.said)
	}
	v.said[text] = true
	level := slog.LevelWarn
	if gatehouse.CodeOf(err) == gatehouse.CodeUnavailable {
		level = slog.LevelInfo // it comes by itself, or the cluster is away
	}
	v.o.Log.Log(ctx, level, key+" failed", "error", err)
}
