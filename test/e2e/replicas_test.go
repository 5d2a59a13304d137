package e2e_test

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// service stands for a Service of the cluster: as kube-proxy does, it leads each new
// connection to one of the servers that were ready when they were asked last, by turns.
type service struct {
	addr     string
	backends []*backend
	turn     atomic.Uint64

	mu   sync.Mutex
	open map[net.Conn]bool
}

type backend struct {
	addr  string
	ready atomic.Bool
}

func startService(t *testing.T, servers ...*e2e.Gatehouse) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{addr: l.Addr().String(), open: map[net.Conn]bool{}}
	var all sync.WaitGroup
	done := make(chan struct{})
	for _, g := range servers {
		b := &backend{addr: strings.TrimPrefix(g.AdmissionURL, "https://")}
		s.backends = append(s.backends, b)
		all.Go(func() { b.watch(done) })
	}
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed at the end
			}
			all.Go(func() { s.carry(conn) })
		}
	})
	t.Cleanup(func() {
		close(done)
		l.Close()
		s.mu.Lock()
		for conn := range s.open {
			conn.Close()
		}
		s.mu.Unlock()
		all.Wait()
	})
	return s
}

// watch asks a server whether it is ready, as a kubelet does, by a connection of its own.
func (b *backend) watch(done <-chan struct{}) {
	client := &http.Client{Timeout: clusterWait, Transport: &http.Transport{
		// A kubelet does not look at the certificate either.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	for {
		resp, err := client.Get("https://" + b.addr + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		b.ready.Store(err == nil && resp.StatusCode == http.StatusOK)
		select {
		case <-done:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (b *backend) rank() int {
	if b.ready.Load() {
		return 1
	}
	return 0
}

// carry brings the bytes of one connection to a server and back. The end of either side
// is the end of both.
func (s *service) carry(conn net.Conn) {
	defer conn.Close()
	first := int(s.turn.Add(1) % uint64(len(s.backends)))
	order := append(slices.Clone(s.backends[first:]), s.backends[:first]...)
	// Where all are in trouble, any of them.
	slices.SortStableFunc(order, func(a, b *backend) int { return cmp.Compare(b.rank(), a.rank()) })
	for _, b := range order {
		to, err := net.Dial("tcp", b.addr)
		if err != nil {
			continue // it has gone since
		}
		defer to.Close()
		s.keep(conn, to)
		defer s.forget(conn, to)
		ended := make(chan struct{}, 2)
		for _, way := range [][2]net.Conn{{conn, to}, {to, conn}} {
			go func() {
				_, _ = io.Copy(way[1], way[0]) // how it ended, the far end sees
				ended <- struct{}{}
			}()
		}
		<-ended
		return
	}
}

func (s *service) keep(conns ...net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range conns {
		s.open[c] = true
	}
}

func (s *service) forget(conns ...net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range conns {
		delete(s.open, c)
	}
}

// holds reports whether a lease is held by the server, whose process id is in its name.
func holds(t *testing.T, k *e2e.Kube, lease string, g *e2e.Gatehouse) bool {
	t.Helper()
	s := k.Must(t, http.MethodGet, "/apis/coordination.k8s.io/v1/namespaces/gatehouse/leases/"+lease, nil)
	holder, _ := field(t, s, "spec", "holderIdentity").(string)
	return strings.Contains(holder, fmt.Sprintf("_%d_", g.ID()))
}

// more waits until some hundred more reviews have been answered.
func (l *load) more(t *testing.T) {
	t.Helper()
	const some = 200
	before := l.answers.Load()
	until(t, "reviews are answered", func() bool { return l.answers.Load() >= before+some })
}

// right stops the load and tells what was wrong.
func (l *load) right(t *testing.T, what string) {
	t.Helper()
	l.stop()
	for _, w := range l.wrong {
		t.Errorf("%s: %s", what, w)
	}
	t.Logf("%s: %d reviews were answered, %d were offered again", what, l.answers.Load(), l.unanswered.Load())
}

// trustedOnceReady waits until a server says that it is ready: from then on callers come
// who look at its certificate.
func trustedOnceReady(t *testing.T, g *e2e.Gatehouse, bundle []byte) {
	t.Helper()
	client := &http.Client{Timeout: clusterWait, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	for end := time.Now().Add(clusterWait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		resp, err := client.Get(g.AdmissionURL + "/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			if _, err := shake(g, bundle); err != nil {
				t.Errorf("it is ready and not trusted: %v", err)
			}
			return
		}
	}
	t.Fatal("it is never ready")
}

// TestTwoReplicas has two servers on one database behind one Service. The one that keeps
// the cluster in step is killed while Pods are created: what it was asked just then is
// offered again, and no answer is wrong; the other takes its work over, with the
// certificate and the webhook configurations that are there. When servers stop in good
// order not one review is lost.
func TestTwoReplicas(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	database, bucket := dbtest.EmptyPostgres(t), s3test.Start(t)
	for _, e := range bucket.Env {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	a := e2e.ReserveGatehouse(t)
	b := a.Another(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", nil)
	k.Namespace(t, "shop", nil)
	door := startService(t, a, b)
	policy := a.WriteFile(t, "policy/fine.yaml", []byte(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: fine}
spec:
  images: [{glob: "registry.example/fine/**"}]
  authorities: [{name: all, static: {action: pass}}]
`))
	// Without the fallback policy, whose answer would come before the webhook's.
	flags := []string{"--database", database, "--storage", bucket.URL, "--kubeconfig", k.Kubeconfig(), "--webhook-url", "https://" + door.addr,
		"--fallback-policy=false", "--drain-delay", "1s", "--policy", policy}
	digest := "@sha256:" + strings.Repeat("ab", 32)
	fine, bad := e2e.Pod("fine", "registry.example/fine/app"+digest), e2e.Pod("bad", "registry.example/bad/app"+digest)

	a.Start(t, flags...)
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	k.WaitDenied(t, "shop", bad)
	b.Start(t, flags...)
	until(t, "both are ready", func() bool { return door.backends[0].ready.Load() && door.backends[1].ready.Load() })
	for _, lease := range []string{"gatehouse", "gatehouse-server"} {
		if !holds(t, k, lease, a) {
			t.Errorf("the lease %s is not held by the first server", lease)
		}
	}
	secret := field(t, k.Must(t, http.MethodGet, secretPath, nil), "data", "tls.crt")
	hook := k.Must(t, http.MethodGet, hooksPath, nil)

	l := startLoad(t, k, fine, bad)
	l.more(t)
	l.lenient.Store(true)
	a.Kill()
	l.more(t) // long before anybody has taken the lease over
	for _, lease := range []string{"gatehouse", "gatehouse-server"} {
		until(t, "the other has the lease "+lease, func() bool { return holds(t, k, lease, b) })
	}
	l.more(t)
	l.right(t, "one was killed")
	after := k.Must(t, http.MethodGet, hooksPath, nil)
	if field(t, hook, "metadata", "uid") != field(t, after, "metadata", "uid") || secret != field(t, k.Must(t, http.MethodGet, secretPath, nil), "data", "tls.crt") {
		t.Error("webhook configuration or certificate have been made anew")
	}
	if _, err := shake(&e2e.Gatehouse{AdmissionURL: "https://" + door.addr}, bundleOf(t, k)); err != nil {
		t.Errorf("what is served is not trusted: %v", err)
	}

	// The other does all that the first did.
	k.Must(t, http.MethodDelete, hooksPath, nil)
	until(t, "the configuration is back", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	k.Must(t, http.MethodPost, cipPath, []byte(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: late}
spec:
  images: [{glob: "registry.example/fine/late**"}]
  authorities: [{name: none, static: {action: fail, message: too late}}]
`))
	late := e2e.Pod("late", "registry.example/fine/late"+digest)
	if s := k.WaitDenied(t, "shop", late); !strings.Contains(s.Message, "too late") {
		t.Errorf("the policy of the cluster is not the one that denies: %s", s.Message)
	}

	// A replica comes, and one goes in good order.
	a.Start(t, flags...)
	trustedOnceReady(t, a, bundleOf(t, k))
	until(t, "both are ready", func() bool { return door.backends[0].ready.Load() && door.backends[1].ready.Load() })
	l = startLoad(t, k, fine, late)
	l.more(t)
	b.Stop()
	for _, lease := range []string{"gatehouse", "gatehouse-server"} {
		until(t, "the first has the lease "+lease, func() bool { return holds(t, k, lease, a) })
	}
	l.more(t)
	l.right(t, "one was stopped")
}
