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
// our own clock, which is one that nobody sets: that of the wall is only written down,
// for people. It is not safe for concurrent use.
type lease struct {
	client    *kube.Client
	namespace string
	name      string
	identity  string
	now       func() time.Time
	elapsed   func() time.Duration // since some moment

	record  string        // that was seen last
	changed time.Duration // when it was seen first
	until   time.Duration // we hold it; 0: we do not
}

// held reports whether we may still act.
func (l *lease) held() bool { return l.elapsed() < l.until }

// stopwatch is a clock that begins now and goes on whatever the machine's time is set to.
func stopwatch() func() time.Duration {
	begin := time.Now()
	return func() time.Duration { return time.Since(begin) }
}

// hold takes or renews the lease and reports whether it is ours. Errors: the cluster's;
// a lease that we have stays ours until its time is over.
func (l *lease) hold(ctx context.Context) (bool, error) {
	start := l.elapsed()
	o, err := l.client.Get(ctx, leases, l.namespace, l.name)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		o = object(leases, "Lease", l.namespace, l.name, nil)
		l.write(o, 0)
		if _, err = l.client.Create(ctx, leases, o); err == nil {
			l.until = start + leaseUse
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
	case holder == "", start-l.changed >= leaseLife:
		transitions++
	default:
		l.until = 0
		return false, nil
	}
	l.write(o, transitions)
	if _, err = l.client.Update(ctx, leases, o); err == nil {
		l.until = start + leaseUse
	} else if gatehouse.CodeOf(err) == gatehouse.CodeConflict {
		l.until = 0 // somebody was faster
	}
	return l.held(), ignoreConflict(err)
}

func (l *lease) write(o *kube.Object, transitions int64) {
	at := l.now().UTC().Format(leaseTimeForm)
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
	l.until = 0
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
