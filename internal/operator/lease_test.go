package operator

import (
	"crypto/x509"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// bearer adds the administrator's token.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(req)
}

func clientOf(t *testing.T, k *e2e.Kube) *kube.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(k.CA)
	e := egress.New(egress.Config{UserTyped: true, RootCAs: pool})
	t.Cleanup(e.Close)
	c, err := kube.New(kube.Options{URL: k.URL, Transport: bearer{k.Token, e.Transport()}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// clock is a clock of our own, so that nothing waits: what the wall shows, and what
// passes.
type clock struct {
	mu      sync.Mutex
	now     time.Time
	elapsed time.Duration
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) running() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.elapsed
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.elapsed = c.now.Add(d), c.elapsed+d
}

// set changes what the wall shows; no time passes.
func (c *clock) set(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// TestOneHoldsTheLease: of two that want it one has it, while it renews it; the other
// takes over when nothing has changed for long enough by its own clock, or at once when
// it was given back. Their clocks differ by years.
func TestOneHoldsTheLease(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	k := e2e.StartKube(t, e2e.KubeOptions{})
	c := clientOf(t, k)
	clocks := map[string]*clock{"a": {now: time.Unix(1e9, 0)}, "b": {now: time.Unix(2e9, 0)}}
	member := func(name string) *lease {
		return &lease{client: c, namespace: "default", name: "test", identity: name, now: clocks[name].read, elapsed: clocks[name].running}
	}
	a, b := member("a"), member("b")
	hold := func(l *lease, want bool, why string) {
		t.Helper()
		got, err := l.hold(t.Context())
		if err != nil || got != want || l.held() != want {
			t.Fatalf("%s: %s holds = %v, %v", why, l.identity, got, err)
		}
	}
	pass := func(d time.Duration) {
		for _, c := range clocks {
			c.pass(d)
		}
	}
	hold(a, true, "the first takes it")
	hold(b, false, "the second does not")
	for range 5 {
		pass(leaseUse - time.Second)
		hold(a, true, "renewed")
		hold(b, false, "it was renewed")
	}
	pass(leaseUse)
	if a.held() {
		t.Error("a believes in it after its time")
	}
	hold(b, false, "it is too early to take it")
	pass(leaseLife - leaseUse)
	hold(b, true, "nothing was heard of a")
	hold(a, false, "b has it now")
	if err := b.release(t.Context()); err != nil || b.held() {
		t.Fatalf("giving it back: %v", err)
	}
	hold(a, true, "b gave it back")
	hold(b, false, "a has it")
	clocks["a"].set(-time.Hour)
	clocks["b"].set(time.Hour)
	hold(b, false, "time was set, and has not passed")
	if !a.held() {
		t.Error("a lost it to a clock that was set")
	}
	pass(leaseUse)
	if a.held() {
		t.Error("a believes in it for an hour more")
	}
}

// TestLeadsByTimeThatPasses: who leads does so as long as the lease says, whatever the
// machine's time is set to meanwhile.
func TestLeadsByTimeThatPasses(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	cluster := e2e.StartKube(t, e2e.KubeOptions{})
	c := clientOf(t, cluster)
	v, err := NewView(ViewOptions{Client: c, Namespace: "default", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	at := &clock{now: time.Unix(1e9, 0)}
	k := NewKeeper(KeeperOptions{Client: c, View: v, Namespace: "default", Lease: "test", Identity: "a", Log: slog.New(slog.DiscardHandler), Now: at.read, Elapsed: at.running})
	if k.Leads() {
		t.Error("leads before it has the lease")
	}
	k.round(t.Context(), false)
	for _, set := range []time.Duration{0, time.Hour, -3 * time.Hour} {
		if at.set(set); !k.Leads() {
			t.Errorf("leads no more where time was set by %s", set)
		}
	}
	at.pass(leaseUse)
	if k.Leads() {
		t.Error("leads after its time, because the clock was set back")
	}
}
