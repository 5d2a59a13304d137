package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
)

const (
	replicaCount = 3
	ownName      = "registry.test" // means all of them
	drainDelay   = time.Second     // until nobody sends new requests to a replica that stops
)

// house is three replicas on one PostgreSQL and one S3, which a test may break.
type house struct {
	postgres *dbtest.Server
	database string
	bucket   *s3test.Bucket
	storage  *s3test.Proxy
	replicas []*replica
}

// newHouse starts the servers and then the replicas.
func newHouse(t testing.TB, flags ...string) *house {
	t.Helper()
	bucket := s3test.Start(t)
	h := &house{bucket: bucket, postgres: dbtest.StartServer(t), storage: s3test.NewProxy(t, bucket)}
	h.database = h.postgres.Database(t, "")
	dir := t.TempDir()
	for i := range replicaCount {
		name := string(rune('a' + i))
		r := newReplica(t, name, filepath.Join(dir, name), append([]string{
			"--database", h.database, "--storage", bucket.Via(h.storage.URL), "--hostnames", ownName}, flags...)...)
		if err := os.Mkdir(r.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		r.env = append(r.env, bucket.Env...)
		r.start()
		h.replicas = append(h.replicas, r)
	}
	return h
}

func (h *house) url(i int) string { return *h.replicas[i].url.Load() }

// query reads one row of numbers from the database.
func (h *house) query(t testing.TB, text string, to ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), text).Scan(to...); err != nil {
		t.Fatal(err)
	}
}

// TestUploadTravels: an upload begun on one replica is continued on the next and
// finished on the third, in every size that storage treats in a way of its own.
func TestUploadTravels(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newClient(t, nil, nil, h.replicas...)
	p := &pusher{c: c, random: rand.New(rand.NewPCG(1, 1))}
	for name, parts := range map[string][]int{
		"a head in its row": {10 << 10, 20 << 10, 4 << 10}, "out of its row": {30 << 10, 50 << 10, 1 << 10},
		"tails": {100 << 10, 300 << 10, 200 << 10}, "parts and a tail": {6 << 20, 5<<20 + 3, 11 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			at, size := 0, 0
			for _, n := range parts {
				size += n
			}
			data := p.fill(size)
			a, err := c.do(t.Context(), call{method: "POST", path: "/v2/shop/app/blobs/uploads/", body: []byte{}, to: h.url(2)})
			if err != nil {
				t.Fatal(err)
			}
			location := a.header.Get("Location")
			for i, n := range parts {
				a, err := c.do(t.Context(), call{method: "PATCH", path: location, body: data[at : at+n], to: h.url(i),
					header: map[string]string{"Content-Range": fmt.Sprintf("%d-%d", at, at+n-1), "Content-Type": octets["Content-Type"]}})
				if err != nil {
					t.Fatal(err)
				}
				at += n
				if got, err := uploadOffset(a.header); err != nil || got != int64(at) {
					t.Fatalf("acknowledged up to %d (%v), want %d", got, err, at)
				}
			}
			if _, err := c.do(t.Context(), call{method: "PUT", path: location + "?digest=" + digestOf(data), body: []byte{}, to: h.url(0)}); err != nil {
				t.Fatal(err)
			}
			for i := range h.replicas {
				one := newClient(t, nil, nil, h.replicas[i])
				if err := one.blob(t.Context(), "shop/app", digestOf(data)); err != nil {
					t.Errorf("replica %d: %v", i, err)
				}
			}
		})
	}
}

// TestReplicaDiesInAChunk kills a replica that is in the middle of a PATCH. The
// session is neither lost nor stuck: the push goes on at an acknowledged byte,
// and ends, on the others.
func TestReplicaDiesInAChunk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newClient(t, nil, nil, h.replicas[1:]...)
	p := &pusher{c: c, l: newLedger(), random: rand.New(rand.NewPCG(2, 2)), shared: [][]byte{[]byte("shared")}}
	u := &upload{c: c, repo: "shop/app", data: p.fill(12 << 20), mode: chunked, chunk: 1 << 20}
	u.digest = digestOf(u.data)
	for u.promised < 3<<20 {
		if err := u.advance(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// A PATCH whose body stops half way: the replica is in the middle of it for
	// certain when it dies, since it has taken more than the kernel buffers.
	body, more := io.Pipe()
	broke := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), "PATCH", h.url(0)+u.location, body)
		if err == nil {
			req.SetBasicAuth("admin", adminPassword)
			req.Header.Set("Content-Type", octets["Content-Type"])
			var resp *http.Response
			if resp, err = c.http.Do(req); err == nil {
				resp.Body.Close()
				err = fmt.Errorf("answered %s", resp.Status)
				broke <- err
				return
			}
		}
		broke <- nil
	}()
	if _, err := more.Write(u.data[u.promised : 11<<20]); err != nil {
		t.Fatal(err)
	}
	h.replicas[0].kill()
	more.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-broke; err != nil {
		t.Fatalf("the PATCH to a replica that was killed: %v", err)
	}
	u.sent, u.doubt, u.disturbed = 11<<20, true, true
	p.leases, p.open = true, []*upload{u}
	if err := p.finishAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	img := newImage("shop/app", nil, []byte("{}"), u.data)
	if err := p.pushBlob(t.Context(), "shop/app", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := p.put(t.Context(), img, "whole"); err != nil {
		t.Fatal(err)
	}
	for _, w := range checkLedger(t.Context(), c, p.l, 0) {
		t.Error(w)
	}
}

// TestReplicasAgree: what one replica was told, the others know when it has
// answered: tags, deletions, policies, advisories.
func TestReplicasAgree(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newClient(t, nil, nil, h.replicas...)
	p := &pusher{c: c, l: newLedger(), random: rand.New(rand.NewPCG(3, 3)), shared: [][]byte{[]byte("shared")}}
	for round := range 20 {
		img := newImage("shop/app", nil, p.fill(50), p.fill(100))
		for _, b := range img.blobs {
			if err := p.pushBlob(t.Context(), img.repo, b); err != nil {
				t.Fatal(err)
			}
		}
		writer, reader := h.url(round%3), h.url((round+1)%3)
		for _, step := range []struct {
			method string
			body   []byte
			want   int
		}{{"PUT", img.body, 200}, {"DELETE", nil, 404}} {
			if _, err := c.do(t.Context(), call{method: step.method, path: "/v2/shop/app/manifests/moving", body: step.body, to: writer,
				header: map[string]string{"Content-Type": img.mediaType}}); err != nil {
				t.Fatal(err)
			}
			a, err := c.do(t.Context(), call{method: "GET", path: "/v2/shop/app/manifests/moving", to: reader})
			if a.status != step.want || step.want == 200 && digestOf(a.body) != img.digest {
				t.Fatalf("after %s on another replica: %d %v, want %d", step.method, a.status, err, step.want)
			}
		}
		if err := p.put(t.Context(), img, "kept"); err != nil {
			t.Fatal(err)
		}
	}
	agreeOnPolicies(t, h, c)
	agreeOnAdvisories(t, h, c)
}

// agreeOnPolicies puts a policy on one replica; another decides by it, and does
// not when it was deleted on the third.
func agreeOnPolicies(t *testing.T, h *house, c *client) {
	t.Helper()
	key := []byte("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhyQCx0E9wQWSFI9ULGwy3BuRklnt\nIqozONbbdbqz11hlRJy9c7SG+hdcFl9jE9uE/dwtuwU2MqU9T/cN0YkWww==\n-----END PUBLIC KEY-----\n")
	for round := range 10 {
		name := fmt.Sprint("signed-", round)
		policy := e2e.KeyPolicy(name, ownName+"/**", key)
		if _, err := c.do(t.Context(), call{method: "PUT", path: "/api/v1/policies/" + name + ".yaml", body: policy, to: h.url(0)}); err != nil {
			t.Fatal(err)
		}
		if says := review(t, h.replicas[1], ownName+"/shop/app:kept"); !strings.Contains(says, name) {
			t.Fatalf("the replica that was not told of the policy %s denies with %q", name, says)
		}
		if _, err := c.do(t.Context(), call{method: "DELETE", path: "/api/v1/policies/" + name + ".yaml", to: h.url(2)}); err != nil {
			t.Fatal(err)
		}
		if says := review(t, h.replicas[1], ownName+"/shop/app:kept"); strings.Contains(says, name) {
			t.Fatalf("the policy %s was deleted, and a replica denies with %q", name, says)
		}
	}
}

// review asks a replica's webhook about a pod and returns what it says.
func review(t *testing.T, r *replica, image string) string {
	t.Helper()
	log, err := os.ReadFile(r.logFile())
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`admission="?(https://[0-9.:]+)`).FindAllSubmatch(log, -1)
	if found == nil {
		t.Fatalf("the log of %s does not tell where its webhook is", r.name)
	}
	body, err := json.Marshal(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": map[string]any{
		"uid": "1", "operation": "CREATE", "namespace": "shop", "name": "p", "kind": map[string]string{"version": "v1", "kind": "Pod"},
		"resource": map[string]string{"version": "v1", "resource": "pods"}, "object": e2e.Pod("p", image)}})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: answerWait}).Post(
		string(found[len(found)-1][1])+"/validate", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct {
		Response struct {
			Allowed bool
			Status  struct{ Message string }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if doc.Response.Allowed {
		return "allowed"
	}
	return doc.Response.Status.Message
}

// agreeOnAdvisories imports advisories on one replica; the others match by them.
func agreeOnAdvisories(t *testing.T, h *house, c *client) {
	t.Helper()
	for round := range 3 {
		record := fmt.Sprintf(`{"schema_version":"1.6.0","id":"TEST-%d","modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"left-%d"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`, round, round)
		if _, err := c.do(t.Context(), call{method: "POST", path: fmt.Sprintf("/api/v1/advisories?name=test-%d.json", round), body: []byte(record), to: h.url(round)}); err != nil {
			t.Fatal(err)
		}
		digests := map[string]int{}
		for i := range h.replicas {
			a, err := c.do(t.Context(), call{method: "GET", path: "/api/v1/advisories", to: h.url(i)})
			if err != nil {
				t.Fatal(err)
			}
			var doc struct{ Digest string }
			if err := json.Unmarshal(a.body, &doc); err != nil {
				t.Fatal(err)
			}
			digests[doc.Digest]++
			inventory := fmt.Sprintf(`{"packages":[{"type":"npm","name":"left-%d","version":"1.0.0"}]}`, round)
			if a, err = c.do(t.Context(), call{method: "POST", path: "/api/v1/match", body: []byte(inventory), to: h.url(i)}); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("TEST-%d", round); !strings.Contains(string(a.body), want) {
				t.Errorf("replica %d does not match by %s: %s", i, want, a.body)
			}
		}
		if len(digests) != 1 {
			t.Errorf("replicas answer by several generations: %v", digests)
		}
	}
}

// TestRollingRestart restarts one replica after the other while clients push:
// SIGTERM, and at the same time, a little late, the load balancer takes it out.
// No request fails.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "--drain-delay", drainDelay.String())
	c := newCrowd(t, h.replicas...)
	for _, p := range c.pushers {
		p.c.lost = func(request string, err error) { t.Errorf("%s failed: %v", request, err) }
		p.c.refused = func(e *refusal) {
			if e.status >= 500 {
				t.Error(e)
			}
		}
	}
	c.begin()
	for round := range 2 * replicaCount {
		r := h.replicas[round%replicaCount]
		c.ledger.next()
		c.pushFor(200, func() {
			out := time.AfterFunc(drainDelay/2, func() { r.url.Store(nil) })
			defer out.Stop()
			if err := r.terminate(); err != nil {
				t.Error(err)
			}
			r.start()
		})
		c.check(c.ledger.round)
	}
	c.end()
	c.check(0)
	onceEach(t, h)
}

// onceEach: with all replicas alive, each job was run once.
func onceEach(t *testing.T, h *house) {
	t.Helper()
	var open, more, jobs int
	for deadline := time.Now().Add(readyWait); ; time.Sleep(50 * time.Millisecond) {
		h.query(t, `SELECT count(*) FILTER (WHERE state < 2), count(*) FILTER (WHERE attempts > 1 OR state = 3), count(*) FROM job`, &open, &more, &jobs)
		if open == 0 || time.Now().After(deadline) {
			break
		}
	}
	if open > 0 || more > 0 || jobs == 0 {
		var which string
		h.query(t, `SELECT coalesce(string_agg(kind || ' ' || key || ' state ' || state || ' attempts ' || attempts || ': ' || error, E'\n'), '') FROM job
			WHERE state <> 2 OR attempts > 1`, &which)
		t.Errorf("of %d jobs %d are not done and %d were run more than once or failed:\n%s", jobs, open, more, which)
	}
}
