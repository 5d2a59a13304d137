package admit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// decider is the real one, over policies that need no registry.
type decider struct{ set decide.PolicySet }

func (d decider) Decide(ctx context.Context, req gatehouse.Request) gatehouse.Decision {
	return decide.Decide(ctx, d.set, gather.Facts(ctx, d.set, req, gather.Sources{}))
}

const policies = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: open}
spec:
  images: [{glob: "good.example/**"}]
  authorities: [{static: {action: pass}}]
---
apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: retiring}
spec:
  images: [{glob: "good.example/old/**"}]
  mode: warn
  authorities: [{static: {action: fail, message: "moves to good.example/new"}}]
`

const rules = `package shop.rules

deny contains msg if {
	c := input.review.object.spec.containers[_]
	endswith(c.image, ":latest")
	msg := sprintf("image %s has no version", [c.image])
}
`

func newHandler(t testing.TB) *admit.Handler {
	t.Helper()
	set, problems := load.Load([]load.File{{Path: "p.yaml", Data: []byte(policies)}, {Path: "r.rego", Data: []byte(rules)}}, gatehouse.Deny)
	if !set.Complete {
		t.Fatal(problems)
	}
	return admit.New(admit.Options{Decider: decider{set}, Now: func() time.Time { return time.Unix(1_700_000_000, 0).UTC() }})
}

// TestText sends the body of each case and compares the whole answer. The
// first line of the comment is "METHOD CONTENT-TYPE".
func TestText(t *testing.T) {
	h := newHandler(t)
	text.Run(t, "testdata/*.txtar", 10, func(t *testing.T, a *txtar.Archive) string {
		var method, contentType string
		if _, err := fmt.Sscan(string(a.Comment), &method, &contentType); err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest(method, "/validate?timeout=5s", bytes.NewReader(a.Files[0].Data))
		req.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, w.Body.Bytes(), "", "  "); err != nil {
			t.Fatalf("the answer is not JSON: %s", w.Body)
		}
		return fmt.Sprintf("%d %s\n%s", w.Code, w.Header().Get("Content-Type"), pretty.Bytes())
	})
}

func TestTooLarge(t *testing.T) {
	req := httptest.NewRequest(http.MethodPost, "/validate", strings.NewReader(strings.Repeat(" ", admit.BodySizeMax+1)))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	newHandler(t).ServeHTTP(w, req)
	if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(w.Body.String(), "8388608 bytes") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestLargestObject: 3 MiB of object and as much before it fit.
func TestLargestObject(t *testing.T) {
	object := podJSON("good.example/a:1", strings.Repeat("x", 3<<20))
	body := fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"UPDATE","object":%s,"oldObject":%s}}`, object, object)
	if r := send(t, newHandler(t), body); !r.Allowed {
		t.Errorf("%+v", r)
	}
}

func podJSON(image, note string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","annotations":{"note":%q}},"spec":{"containers":[{"image":%q}]}}`, note, image)
}

func create(image string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","object":%s}}`, podJSON(image, ""))
}

type response struct {
	UID      string
	Allowed  bool
	Warnings []string
	Status   struct {
		Code    int
		Message string
	}
}

func send(t testing.TB, h http.Handler, body string) response {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/validate?timeout=5s", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	var review struct{ Response response }
	if err := json.Unmarshal(w.Body.Bytes(), &review); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return review.Response
}

type deciderFunc func(context.Context, gatehouse.Request) gatehouse.Decision

func (f deciderFunc) Decide(ctx context.Context, req gatehouse.Request) gatehouse.Decision {
	return f(ctx, req)
}

// TestFaultsDeny: whatever a Decider does, the answer is a review that denies.
func TestFaultsDeny(t *testing.T) {
	for name, f := range map[string]deciderFunc{
		"panic":            func(context.Context, gatehouse.Request) gatehouse.Decision { panic("x") },
		"zero decision":    func(context.Context, gatehouse.Request) gatehouse.Decision { return gatehouse.Decision{} },
		"unknown verdict":  func(context.Context, gatehouse.Request) gatehouse.Decision { return gatehouse.Decision{Verdict: 7} },
		"negative verdict": func(context.Context, gatehouse.Request) gatehouse.Decision { return gatehouse.Decision{Verdict: -1} },
	} {
		t.Run(name, func(t *testing.T) {
			if r := send(t, admit.New(admit.Options{Decider: f}), create("good.example/a:1")); r.Allowed || r.UID != "u" || r.Status.Code != 403 || r.Status.Message == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestDeciderThatHangs is answered before the API server gives up.
func TestDeciderThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		start := time.Now()
		r := send(t, admit.New(admit.Options{Decider: deciderFunc(func(context.Context, gatehouse.Request) gatehouse.Decision {
			<-end
			return gatehouse.Decision{Verdict: gatehouse.Allow}
		})}), create("good.example/a:1"))
		if took := time.Since(start); r.Allowed || took != 4500*time.Millisecond || !strings.Contains(r.Status.Message, "[timeout]") {
			t.Errorf("%s: %+v", took, r)
		}
		close(end)
		synctest.Wait()
	})
}

// TestLongReasons stay readable, and keep the decision's id.
func TestLongReasons(t *testing.T) {
	d := gatehouse.Decision{ID: "abc", Verdict: gatehouse.Deny}
	for range 100 {
		d.Reasons = append(d.Reasons, gatehouse.Reason{Code: "c", Message: strings.Repeat("long\x1b[31m\n", 100)},
			gatehouse.Reason{Verdict: gatehouse.Warn, Code: "c", Message: strings.Repeat("warn\r\n", 100)})
	}
	r := send(t, admit.New(admit.Options{Decider: deciderFunc(func(context.Context, gatehouse.Request) gatehouse.Decision { return d })}), create("a"))
	if len(r.Status.Message) > 6_100 || !strings.HasSuffix(r.Status.Message, "decision abc") || strings.Contains(r.Status.Message, "\x1b") {
		t.Errorf("%d bytes: %q", len(r.Status.Message), r.Status.Message[max(0, len(r.Status.Message)-100):])
	}
	if len(r.Warnings) != 10 || strings.ContainsAny(strings.Join(r.Warnings, ""), "\r\n") || len(r.Warnings[0]) > 410 {
		t.Errorf("%d warnings", len(r.Warnings))
	}
}

func FuzzReview(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(ar.Files[0].Data)
	}
	h := newHandler(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		req := httptest.NewRequest(http.MethodPost, "/validate", bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		var answer struct {
			Kind     string
			Response *response
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatalf("%d: the answer is not JSON: %s", w.Code, w.Body)
		}
		switch {
		case w.Code == http.StatusOK && answer.Response != nil && answer.Response.UID != "":
		case w.Code == http.StatusBadRequest && answer.Kind == "Status":
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		again := httptest.NewRequest(http.MethodPost, "/mutate", bytes.NewReader(body))
		again.Header.Set("Content-Type", "application/json")
		m := httptest.NewRecorder()
		pinsFirst.Mutate(m, again)
		checkMutation(t, w.Code, m)
		if answer.Response != nil && answer.Response.Allowed && bytes.Contains(body, []byte("evil.example")) && !bytes.Contains(body, []byte("\\")) {
			checkNoEvil(t, body)
		}
	})
}

// pinsFirst writes a digest into the first container, whatever the object is.
var pinsFirst = admit.New(admit.Options{Pinner: pinnerFunc(func(context.Context, gatehouse.Request) ([]admit.Pin, error) {
	return []admit.Pin{{Field: "spec.containers[0].image", Written: "a", Image: "a@sha256:0"}}, nil
})})

// checkMutation: the mutating webhook takes what the validating one takes, and answers
// with a patch or none.
func checkMutation(t *testing.T, code int, w *httptest.ResponseRecorder) {
	var answer struct{ Response *mutation }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != code || code == http.StatusOK && answer.Response == nil {
		t.Fatalf("%d, the other answered %d: %s", w.Code, code, w.Body)
	}
	if r := answer.Response; r != nil && (len(r.Patch) > 0) != (r.PatchType == "JSONPatch") {
		t.Fatalf("%+v", r)
	} else if r != nil && len(r.Patch) > 0 && !json.Valid(r.Patch) {
		t.Fatalf("the patch %s", r.Patch)
	}
}

// checkNoEvil looks at a review that was admitted with other eyes: no
// container of a Pod may hold the image that no policy names.
func checkNoEvil(t *testing.T, body []byte) {
	var r struct {
		Request struct {
			Operation string `json:"operation"`
			Object    struct {
				APIVersion string `json:"apiVersion"`
				Kind       string `json:"kind"`
				Spec       struct {
					Containers []struct {
						Image string `json:"image"`
					} `json:"containers"`
				} `json:"spec"`
			} `json:"object"`
		} `json:"request"`
	}
	if json.Unmarshal(body, &r) != nil || r.Request.Object.Kind != "Pod" || r.Request.Object.APIVersion != "v1" {
		return
	}
	// encoding/json ignores case, Kubernetes does not: only the exact names count.
	for _, name := range []string{`"object"`, `"spec"`, `"containers"`, `"image"`, `"kind"`, `"request"`} {
		if bytes.Count(body, []byte(name)) != bytes.Count(bytes.ToLower(body), []byte(name)) {
			return
		}
	}
	for _, c := range r.Request.Object.Spec.Containers {
		if strings.HasPrefix(c.Image, "evil.example/") {
			t.Fatalf("admitted: %s", body)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	h := newHandler(b)
	body := create("good.example/a:1")
	b.ReportAllocs()
	for b.Loop() {
		if !send(b, h, body).Allowed {
			b.Fatal("denied")
		}
	}
}

// blocked is a Decider that does not heed its context.
type blocked struct{ until chan struct{} }

func (b blocked) Decide(context.Context, gatehouse.Request) gatehouse.Decision {
	<-b.until
	return gatehouse.Decision{Verdict: gatehouse.Allow}
}

// TestRoomIsBounded: large reviews wait for each other, and their room is taken
// until the decision is done, even when nobody waits for it any more.
func TestRoomIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := blocked{make(chan struct{})}
		h := admit.New(admit.Options{Decider: b})
		send := func(size int) string {
			body := fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","object":{"x":%q}}}`, strings.Repeat("a", size))
			r := httptest.NewRequest("POST", "/validate?timeout=1s", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.Validate(w, r)
			return w.Body.String()
		}
		if answer := send(admit.JudgedBytesMax + 1); !strings.Contains(answer, "took longer") {
			t.Errorf("the first: %s", answer)
		}
		if answer := send(10); !strings.Contains(answer, "waited for others") || !strings.Contains(answer, `"allowed":false`) {
			t.Errorf("the second: %s", answer)
		}
		close(b.until)
		synctest.Wait()
		if answer := send(10); !strings.Contains(answer, `"allowed":true`) {
			t.Errorf("the third: %s", answer)
		}
	})
}

// TestSlowBody: a client that does not send what it announced is answered, and
// does not hold a connection for ever.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		l := &once{conn: conn, closed: make(chan struct{})}
		srv := &http.Server{Handler: admit.New(admit.Options{Decider: blocked{}})}
		go srv.Serve(l)
		go fmt.Fprint(client, "POST /validate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		start := time.Now()
		answer, err := io.ReadAll(client)
		if took := time.Since(start); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") || took > time.Minute {
			t.Errorf("after %s: %v: %s", took, err, answer)
		}
		srv.Close()
	})
}

// TestSlowStream is TestSlowBody by HTTP/2, where others use the same connection.
func TestSlowStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		l := &once{conn: conn, closed: make(chan struct{})}
		plain := new(http.Protocols)
		plain.SetUnencryptedHTTP2(true)
		srv := &http.Server{Handler: newHandler(t), Protocols: plain}
		go srv.Serve(l)
		tr := &http.Transport{Protocols: plain, DialContext: func(context.Context, string, string) (net.Conn, error) { return client, nil }}
		post := func(body io.Reader) (int, string) {
			resp, err := (&http.Client{Transport: tr}).Post("http://x/validate", "application/json", body)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Error(err)
			}
			return resp.StatusCode, string(answer)
		}
		slow, never := io.Pipe()
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			code, answer := post(slow)
			if took := time.Since(start); code != http.StatusBadRequest || !strings.Contains(answer, "broke off") || took > time.Minute {
				t.Errorf("after %s: %d %s", took, code, answer)
			}
		}()
		if _, err := never.Write([]byte("{")); err != nil {
			t.Error(err)
		}
		if code, answer := post(strings.NewReader(create("good.example/a:1"))); code != http.StatusOK {
			t.Errorf("another one meanwhile: %d %s", code, answer)
		}
		<-done
		never.Close()
		tr.CloseIdleConnections()
		srv.Close()
		client.Close()
	})
}

// once is a listener of one connection.
type once struct {
	conn   net.Conn
	closed chan struct{}
	close  sync.Once
}

func (l *once) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *once) Close() error   { l.close.Do(func() { close(l.closed) }); return nil }
func (l *once) Addr() net.Addr { return &net.TCPAddr{} }

// TestReviewIsReadOnce: every field of a review has one name and one value, so that
// nothing is judged that the API server did not mean.
func TestReviewIsReadOnce(t *testing.T) {
	pod := func(image string) string { return podJSON(image, "") }
	for name, body := range map[string]string{
		"object twice":     `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","object":` + pod("evil.example/a") + `,"object":` + pod("good.example/a:1") + `}}`,
		"request twice":    `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{},"request":{"uid":"u","operation":"CREATE","object":` + pod("good.example/a:1") + `}}`,
		"something behind": create("good.example/a:1") + "{}",
		"a list":           `[]`,
		"uid is a number":  `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":1,"operation":"DELETE"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			req := httptest.NewRequest(http.MethodPost, "/validate", strings.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			newHandler(t).ServeHTTP(w, req)
			if w.Code != http.StatusBadRequest {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	// Another spelling is another field, which nobody reads.
	r := send(t, newHandler(t), `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","Object":`+pod("good.example/a:1")+`}}`)
	if r.Allowed || r.Status.Code != 400 {
		t.Errorf("%+v", r)
	}
}

// TestRequestIsWhole: policies get what the review says.
func TestRequestIsWhole(t *testing.T) {
	var got gatehouse.Request
	h := admit.New(admit.Options{Decider: deciderFunc(func(_ context.Context, req gatehouse.Request) gatehouse.Decision {
		got = req
		return gatehouse.Decision{}
	})})
	const request = `{"uid":"u","kind":{"group":"g","version":"v","kind":"K"},"resource":{"group":"g","version":"v","resource":"ks"},"subResource":"status",
		"requestKind":{"kind":"other"},"name":"n","namespace":"ns","operation":"UPDATE","userInfo":{"username":"jane","uid":"7","groups":["a"],"extra":{"x":["y"]}},
		"object":{"a":1},"oldObject":{"a":2},"dryRun":true,"options":{}}`
	send(t, h, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":`+request+`}`)
	got.Now = time.Time{}
	want := gatehouse.Request{
		UID: "u", Kind: gatehouse.ObjectKind{Group: "g", Version: "v", Kind: "K"}, Resource: gatehouse.ObjectResource{Group: "g", Version: "v", Resource: "ks"},
		SubResource: "status", Name: "n", Namespace: "ns", Operation: "UPDATE", User: gatehouse.User{Name: "jane", UID: "7", Groups: []string{"a"}, Extra: map[string][]string{"x": {"y"}}}, DryRun: true,
		Object: []byte(`{"a":1}`), OldObject: []byte(`{"a":2}`), Review: []byte(request), Mutated: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
