package operator

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

const (
	// leaseLife is how long a lease is left to a holder that says nothing, and
	// leaseUse how long its holder believes in it after the last renewal: the
	// difference is what clocks and pauses may cost.
	leaseLife = 15 * time.Second
	leaseUse  = 10 * time.Second
	// leaseTimeForm is that of MicroTime.
	leaseTimeForm = "2006-01-02T15:04:05.000000Z07:00"
)

// lease says which of several replicas changes the cluster. Times of other machines
// are never compared with ours: a lease is free when it has not changed for a while by
// our own clock. It is not safe for concurrent use.
type lease struct {
	client    *kube.Client
	namespace string
	name      string
	identity  string
	now       func() time.Time

	record  string    // that was seen last
	changed time.Time // when it was seen first
	until   time.Time // we hold it
}

// held reports whether we may still act.
func (l *lease) held() bool { return l.now().Before(l.until) }

// hold takes or renews the lease and reports whether it is ours. Errors: the cluster's;
// a lease that we have stays ours until its time is over.
func (l *lease) hold(ctx context.Context) (bool, error) {
	start := l.now()
	o, err := l.client.Get(ctx, leases, l.namespace, l.name)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		o = object(leases, "Lease", l.namespace, l.name, nil)
		l.write(o, start, 0)
		if _, err = l.client.Create(ctx, leases, o); err == nil {
			l.until = start.Add(leaseUse)
		}
		return l.held(), ignoreConflict(err)
	}
	if err != nil {
		return l.held(), err
	}
	spec, _ := o.Object["spec"].(map[string]any)
	holder, _ := spec["holderIdentity"].(string)
	transitions, _ := spec["leaseTransitions"].(int64)
	if record := fmt.Sprint(o.GetResourceVersion(), holder); record != l.record {
		l.record, l.changed = record, start
	}
	switch {
	case holder == l.identity:
	case holder == "", start.Sub(l.changed) >= leaseLife:
		transitions++
	default:
		l.until = time.Time{}
		return false, nil
	}
	l.write(o, start, transitions)
	if _, err = l.client.Update(ctx, leases, o); err == nil {
		l.until = start.Add(leaseUse)
	} else if gatehouse.CodeOf(err) == gatehouse.CodeConflict {
		l.until = time.Time{} // somebody was faster
	}
	return l.held(), ignoreConflict(err)
}

func (l *lease) write(o *kube.Object, now time.Time, transitions int64) {
	at := now.UTC().Format(leaseTimeForm)
	o.Object["spec"] = map[string]any{
		"holderIdentity": l.identity, "leaseDurationSeconds": int64(leaseLife / time.Second),
		"acquireTime": at, "renewTime": at, "leaseTransitions": transitions,
	}
}

// release lets another replica take over at once.
func (l *lease) release(ctx context.Context) error {
	if !l.held() {
		return nil
	}
	l.until = time.Time{}
	o, err := l.client.Get(ctx, leases, l.namespace, l.name)
	if err != nil {
		return err
	}
	spec, _ := o.Object["spec"].(map[string]any)
	if spec["holderIdentity"] != l.identity {
		return nil
	}
	spec["holderIdentity"] = ""
	_, err = l.client.Update(ctx, leases, o)
	return ignoreConflict(err)
}

func ignoreConflict(err error) error {
	if gatehouse.CodeOf(err) == gatehouse.CodeConflict {
		return nil
	}
	return err
}
