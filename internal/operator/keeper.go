package operator

import (
	"context"
	"encoding/base64"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
	"github.com/gatehouse-dev/gatehouse/internal/operator/pki"
)

const (
	// renewEvery is how often the lease is renewed, and the certificate looked at.
	renewEvery = 4 * time.Second
	// lookEvery is after how many renewals everything is looked at again that nothing
	// tells us of: somebody may have changed what is ours.
	lookEvery = 5
	// settle collects changes that come together.
	settle = 50 * time.Millisecond
	// startWait is how long nobody may answer before that is worth a line in the log: who
	// has just been started comes a moment later.
	startWait = 10 * time.Second
	// stepsMax bounds the steps of one look at the certificate.
	stepsMax = 4
	// releaseWait is how long the end of a lease may take when we stop.
	releaseWait = 3 * time.Second
)

// certificateSecret is the Secret that holds the webhook's certificate, and
// annotationRotate the annotation of it that asks for a new authority when it changes.
const (
	certificateSecret = "gatehouse-webhook"
	annotationRotate  = "gatehouse.dev/rotate"
)

// KeeperOptions are what a Keeper does. What is nil is not done.
type KeeperOptions struct {
	Client    *kube.Client
	View      *View
	Namespace string // ours
	Identity  string // of this replica
	// Lease names what of several Keepers with the same work one holds.
	Lease string
	// Owner is a ClusterRole that webhook configurations and the fallback go away
	// with; empty: none.
	Owner string
	// Definitions of custom resources that are made where they are missing.
	Definitions []Definition
	// Constraints is the grammar of Gatekeeper's constraints: each template in the view
	// gets the definition of its kind. Nil: they get none.
	Constraints *manifest.Type
	// Documents takes what policies are made of, whenever it may have changed.
	Documents func(context.Context, map[string]string) error
	// Webhook is how the cluster asks us. With Ready its configurations are kept, and
	// its certificate by Terms; without, it only says which namespaces are spared.
	Webhook *Webhook
	Terms   pki.Terms
	// Ready tells why the webhook would not answer now a caller that trusts bundle
	// (PEM); nil: it would.
	Ready func(ctx context.Context, bundle []byte) error
	// Fallback is what holds while nobody answers.
	Fallback func(context.Context) (Fallback, error)
	// Status tells what became of the policies, by their paths.
	Status func(context.Context) (map[string]Status, error)
	Log    *slog.Logger
	Now    func() time.Time
	// Elapsed is the time since some moment, by a clock that nobody sets; it says how
	// long the lease is ours. Nil: that of the process.
	Elapsed func() time.Duration
}

// Keeper changes the cluster, while it has the lease. Make it with [NewKeeper], then
// call Run once.
type Keeper struct {
	o     KeeperOptions
	lease lease
	led   bool
	wake  <-chan struct{}
	done  map[string]done
	loose map[string]string // definitions without a schema of parameters → version of their template
	taken map[string]string // documents that were handed over, since we have the lease
	told  map[string]string // what is wrong with entries of ConfigMaps, by path, as an Event says it
	waits time.Time         // since when nobody answers
	leads atomic.Int64      // until when the lease is ours, by Elapsed
}

// done is what was applied to an object: as long as neither it nor what is wanted
// changes there is nothing to do.
type done struct{ wanted, version string }

// NewKeeper prepares a Keeper.
func NewKeeper(o KeeperOptions) *Keeper {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Elapsed == nil {
		o.Elapsed = stopwatch()
	}
	return &Keeper{
		o: o, done: map[string]done{}, loose: map[string]string{}, told: map[string]string{}, wake: o.View.Follow(),
		lease: lease{client: o.Client, namespace: o.Namespace, name: o.Lease, identity: o.Identity, now: o.Now, elapsed: o.Elapsed},
	}
}

// Run keeps the cluster in step until ctx ends. Failures stand in the log, and are
// tried again.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	ticks, news := 0, true
	for {
		k.round(ctx, news || ticks%lookEvery == 0)
		news = false
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
			defer cancel()
			k.leads.Store(0)
			_ = k.lease.release(end) // another replica waits a moment longer
			return nil
		case <-tick.C:
			ticks++
		case <-k.wake:
			news = true
			select {
			case <-ctx.Done():
			case <-time.After(settle):
			}
		}
	}
}

// Leads reports whether the lease is ours, so that what this replica does beside the
// Keeper is done by no other. It is safe for concurrent use.
func (k *Keeper) Leads() bool { return k.o.Elapsed() < time.Duration(k.leads.Load()) }

// round does all that is due, each part for itself: what fails keeps nothing else from
// being done. Without all it does what time alone makes due.
func (k *Keeper) round(ctx context.Context, all bool) {
	mine, err := k.lease.hold(ctx)
	k.leads.Store(int64(k.lease.until))
	k.o.View.complain(ctx, "renew the lease "+k.o.Lease, err)
	if mine != k.led {
		k.led, k.taken, all = mine, nil, true
		k.o.Log.InfoContext(ctx, "cluster lease", "name", k.o.Lease, "ours", mine, "identity", k.o.Identity)
	}
	if !mine {
		return
	}
	for _, part := range []struct {
		name   string
		do     func(context.Context) error
		always bool
	}{
		{"keep the definitions", k.definitions, false},
		{"take over the policies of the cluster", k.documents, true},
		{"keep the webhook", k.webhook, true},
		{"keep the fallback policy", k.fallback, false},
		{"keep the status of policies", k.status, false},
	} {
		if !part.always && !all {
			continue
		}
		if !k.lease.held() || ctx.Err() != nil {
			return
		}
		err := part.do(ctx)
		if ctx.Err() == nil {
			k.o.View.complain(ctx, part.name, err)
		}
	}
}

func (k *Keeper) documents(ctx context.Context) error {
	if k.o.Documents == nil {
		return nil
	}
	docs, err := k.o.View.Documents()
	if err != nil {
		return err
	}
	if !k.lease.held() || k.taken != nil && maps.Equal(k.taken, docs) {
		return nil
	}
	err = k.o.Documents(ctx, docs)
	if err == nil {
		k.taken = docs
	}
	return err
}

// webhook keeps the certificate, then the configurations that trust it. They are made
// when somebody answers, and not before: a cluster that asks nobody starts.
func (k *Keeper) webhook(ctx context.Context) error {
	if k.o.Webhook == nil || k.o.Ready == nil {
		return nil
	}
	var bundle []byte
	var m pki.Material
	if !k.o.Webhook.OtherCA {
		var err error
		if m, err = k.certificate(ctx); err != nil {
			return err
		}
		bundle = m.Bundle()
	}
	w := *k.o.Webhook
	var err error
	if w.Policies, err = k.o.View.judged(w.Policies); err != nil {
		return err
	}
	validate, mutate, err := w.configurations(k.o.Namespace, bundle)
	if err != nil {
		return err
	}
	there, err := k.exists(ctx, validating, configurationName)
	if err != nil {
		return err
	}
	if there {
		k.waits = time.Time{}
	} else {
		if err := k.o.Ready(ctx, bundle); err != nil {
			if now := k.o.Now(); k.waits.IsZero() {
				k.waits = now
			} else if now.Sub(k.waits) >= startWait {
				return gatehouse.Errorf(gatehouse.CodeUnavailable, "the webhook configuration waits until somebody answers: %w", err)
			}
			k.o.Log.DebugContext(ctx, "webhook configuration waits until somebody answers", "error", err)
			return nil
		}
	}
	if mutate != nil {
		if err := k.apply(ctx, mutating, mutate); err != nil {
			return err
		}
	} else if err := k.remove(ctx, mutating, configurationName); err != nil {
		return err
	}
	if err := k.apply(ctx, validating, validate); err != nil {
		return err
	}
	if !there {
		k.o.Log.InfoContext(ctx, "webhook configurations made", "name", configurationName)
	}
	if k.o.Webhook.OtherCA {
		return nil
	}
	return k.announced(ctx, m)
}

// certificate takes the steps that are due, and returns what there is then.
func (k *Keeper) certificate(ctx context.Context) (pki.Material, error) {
	for range stepsMax {
		o, m, err := k.material(ctx)
		if err != nil {
			return m, err
		}
		terms := k.o.Terms
		terms.Asked = ""
		if o != nil {
			terms.Asked = o.GetAnnotations()[annotationRotate]
		}
		next, step, err := m.Next(k.o.Now(), terms)
		if err != nil || step == "" {
			return m, err
		}
		if err := k.store(ctx, o, next); gatehouse.CodeOf(err) == gatehouse.CodeConflict {
			continue // somebody else did something: look again
		} else if err != nil {
			return m, err
		}
		k.o.Log.InfoContext(ctx, "webhook certificate", "step", step)
	}
	_, m, err := k.material(ctx)
	return m, err
}

// material reads the Secret; nil and nothing where there is none. One that cannot be
// read is not written over: somebody should look at it.
func (k *Keeper) material(ctx context.Context) (*kube.Object, pki.Material, error) {
	o, err := k.o.Client.Get(ctx, secrets, k.o.Namespace, certificateSecret)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil, pki.Material{}, nil
	}
	if err != nil {
		return nil, pki.Material{}, err
	}
	m, err := pki.FromEntries(secretData(o))
	if err != nil {
		return nil, m, gatehouse.Errorf(gatehouse.CodeInvalid, "secret %s/%s: %w", k.o.Namespace, certificateSecret, err).
			WithHint("delete the secret to have a new one made")
	}
	return o, m, nil
}

// store writes m, if the Secret is still as old is.
func (k *Keeper) store(ctx context.Context, old *kube.Object, m pki.Material) error {
	entries, err := m.Entries()
	if err != nil {
		return err
	}
	data := map[string]any{}
	for name, b := range entries {
		data[name] = base64.StdEncoding.EncodeToString(b)
	}
	if old == nil {
		o := object(secrets, "Secret", k.o.Namespace, certificateSecret, map[string]any{"type": "Opaque", "data": data})
		_, err = k.o.Client.Create(ctx, secrets, o)
		return err
	}
	old.Object["data"] = data
	_, err = k.o.Client.Update(ctx, secrets, old)
	return err
}

// announced notes that the configurations in the cluster name the whole bundle of m.
func (k *Keeper) announced(ctx context.Context, m pki.Material) error {
	if _, changed := m.Announced(k.o.Now()); !changed {
		return nil
	}
	o, now, err := k.material(ctx)
	if err != nil || o == nil || string(now.Bundle()) != string(m.Bundle()) {
		return err // another one was added meanwhile: the next round tells of it
	}
	next, _ := now.Announced(k.o.Now())
	return ignoreConflict(k.store(ctx, o, next))
}

// Material is the certificate that this replica has to serve. CodeUnavailable: none is
// known yet.
func (v *View) Material() (pki.Material, error) {
	data := v.secret(certificateSecret)
	if data == nil {
		return pki.Material{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the webhook's certificate is not there yet")
	}
	return pki.FromEntries(data)
}

func (k *Keeper) exists(ctx context.Context, r kube.Resource, name string) (bool, error) {
	_, err := k.o.Client.Get(ctx, r, "", name)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return false, nil
	}
	return err == nil, err
}

// apply makes o so, with its owner.
func (k *Keeper) apply(ctx context.Context, r kube.Resource, o *kube.Object) error {
	if err := k.own(ctx, o); err != nil {
		return err
	}
	return k.applied(ctx, r, o)
}

// applied makes o so, if it is not as it was left.
func (k *Keeper) applied(ctx context.Context, r kube.Resource, o *kube.Object) error {
	wanted, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	there, err := k.o.Client.Get(ctx, r, "", o.GetName())
	if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		return err
	}
	key := r.Resource + "/" + o.GetName()
	if err == nil && k.done[key] == (done{string(wanted), there.GetResourceVersion()}) {
		return nil
	}
	after, err := k.o.Client.Apply(ctx, r, o)
	if err == nil {
		k.done[key] = done{string(wanted), after.GetResourceVersion()}
	}
	return err
}

// remove deletes what is ours.
func (k *Keeper) remove(ctx context.Context, r kube.Resource, name string) error {
	o, err := k.o.Client.Get(ctx, r, "", name)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound || err == nil && !ours(o) {
		return nil
	}
	if err == nil {
		err = k.o.Client.Delete(ctx, r, "", name)
	}
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil
	}
	return err
}

// own makes the ClusterRole of the settings the owner of o.
func (k *Keeper) own(ctx context.Context, o *kube.Object) error {
	if k.o.Owner == "" {
		return nil
	}
	role, err := k.o.Client.Get(ctx, roles, "", k.o.Owner)
	if err != nil {
		return err
	}
	metadata, _ := o.Object["metadata"].(map[string]any)
	metadata["ownerReferences"] = []any{map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": k.o.Owner, "uid": string(role.GetUID()),
	}}
	return nil
}

// Remove takes away what would go on acting in the cluster without us: webhook
// configurations and the fallback policy. Policies and their definitions stay.
func Remove(ctx context.Context, c *kube.Client) error {
	k := &Keeper{o: KeeperOptions{Client: c}}
	for _, what := range slices.Backward([]struct {
		r    kube.Resource
		name string
	}{{fallbacks, fallbackName}, {bindings, fallbackName}, {mutating, configurationName}, {validating, configurationName}}) {
		if err := k.remove(ctx, what.r, what.name); err != nil {
			return err
		}
	}
	return nil
}

// Rotate asks for a new authority of the webhook's certificate. CodeNotFound: there is
// no certificate of ours.
func Rotate(ctx context.Context, c *kube.Client, namespace string, now time.Time) error {
	o, err := c.Get(ctx, secrets, namespace, certificateSecret)
	if err != nil {
		return err
	}
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[annotationRotate] = now.UTC().Format(time.RFC3339Nano)
	o.SetAnnotations(annotations)
	_, err = c.Update(ctx, secrets, o)
	return err
}
