package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/admit/node"
)

const (
	digestA = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
	digestB = "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
	typeOCI = "application/vnd.oci.descriptor.v1+json"
)

// only is a Decider that lets images of one registry run.
type only string

func (o only) Decide(_ context.Context, req gatehouse.Request) gatehouse.Decision {
	d := gatehouse.Decision{ID: "d1", Verdict: gatehouse.Allow}
	for _, f := range req.Images {
		if f.Image.Registry != string(o) {
			d.Verdict = gatehouse.Deny
			d.Reasons = append(d.Reasons, gatehouse.Reason{Code: "no", Image: f.Written, Message: "is not ours"})
		}
	}
	return d
}

// asker asks a server that runs; stop ends that.
func asker(t *testing.T) (a *node.Asker, stop func()) {
	t.Helper()
	mux := http.NewServeMux()
	admit.NewDoors(admit.DoorOptions{Decider: only("good.example")}).Register(mux)
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &node.Asker{Server: u, Client: server.Client(), Always: admit.Always{Digests: admit.PauseDigests(), Namespaces: []string{"kube-system"}}}, server.Close
}

func descriptor(digest string) string {
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q,"size":7}`, digest)
}

// TestVerify: containerd is told what the server says, of the digest that it has
// resolved; while the server is away only the list is let through.
func TestVerify(t *testing.T) {
	a, stop := asker(t)
	pause := string(admit.PauseDigests()[2])
	for _, down := range []bool{false, true} {
		if down {
			stop()
		}
		for name, tt := range map[string]struct {
			image, digest, mediaType, in string
			up, down                     bool
		}{
			"ours":                  {"good.example/a:1", digestA, typeOCI, descriptor(digestA), true, false},
			"ours by digest":        {"good.example/a@" + digestA, digestA, typeOCI, descriptor(digestA), true, false},
			"without a descriptor":  {"good.example/a:1", digestA, "", "", true, false},
			"an unknown descriptor": {"good.example/a:1", digestA, "application/x", "?", true, false},
			"not ours":              {"evil.example/a:1", digestA, typeOCI, descriptor(digestA), false, false},
			"pause":                 {"registry.k8s.io/pause:3.10.1", pause, typeOCI, descriptor(pause), true, true},
			"called pause":          {"registry.k8s.io/pause:3.10.1", digestA, typeOCI, descriptor(digestA), false, false},
			"pause by another name": {"evil.example/pause@" + pause, pause, typeOCI, descriptor(pause), true, true},
			"two digests":           {"good.example/a@" + digestA, digestB, typeOCI, descriptor(digestB), false, false},
			"another descriptor":    {"registry.k8s.io/pause:3.10.1", pause, typeOCI, descriptor(digestA), false, false},
			"a broken descriptor":   {"registry.k8s.io/pause:3.10.1", pause, typeOCI, "{", false, false},
			"no digest":             {"good.example/a:1", "latest", typeOCI, descriptor(digestA), false, false},
			"no name":               {"", digestA, typeOCI, descriptor(digestA), false, false},
		} {
			want := tt.up
			if down {
				want = tt.down
			}
			s := a.Verify(t.Context(), tt.image, tt.digest, tt.mediaType, strings.NewReader(tt.in))
			if s.Allowed != want || !want && s.Reason == "" {
				t.Errorf("%s, down %v: %+v", name, down, s)
			}
		}
	}
}

// TestAnswersThatAreNone are a no.
func TestAnswersThatAreNone(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"nothing":        func(http.ResponseWriter) {},
		"a page":         func(w http.ResponseWriter) { fmt.Fprint(w, "<html>") },
		"not found":      func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		"another code":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway); fmt.Fprint(w, allowing) },
		"another kind":   func(w http.ResponseWriter) { fmt.Fprint(w, strings.Replace(allowing, "ImageReview", "PodReview", 1)) },
		"no status":      func(w http.ResponseWriter) { fmt.Fprint(w, strings.Replace(allowing, "status", "state", 1)) },
		"without an end": func(w http.ResponseWriter) { fmt.Fprint(w, allowing[:len(allowing)-3]) },
		"very much":      func(w http.ResponseWriter) { fmt.Fprint(w, strings.Repeat(" ", 2<<20)+allowing) },
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
		u, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		a := &node.Asker{Server: u, Client: server.Client()}
		if s := a.Review(t.Context(), admit.NewImageReview("shop", "good.example/a:1")); s.Allowed || s.Reason == "" {
			t.Errorf("%s: %+v", name, s)
		}
		server.Close()
	}
	if s := new(node.Asker).Review(t.Context(), admit.NewImageReview("shop", "good.example/a:1")); s.Allowed || s.Reason == "" {
		t.Errorf("the zero Asker: %+v", s)
	}
}

const allowing = `{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","status":{"allowed":true}}`

// TestRelay: an API server has its answers from the machine beside it, and the list
// holds before there is a configuration and while the server is away.
func TestRelay(t *testing.T) {
	a, stop := asker(t)
	configured := false
	relay := &node.Relay{Asker: func() (*node.Asker, error) {
		if !configured {
			return &node.Asker{Always: a.Always}, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no CA yet")
		}
		return a, nil
	}}
	ask := func(body string) (s admit.ImageReviewStatus) {
		w := httptest.NewRecorder()
		relay.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/x", strings.NewReader(body)))
		var out admit.ImageReview
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.Status == nil || w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return *out.Status
	}
	body := func(namespace, image string) string {
		b, err := json.Marshal(admit.NewImageReview(namespace, image))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	check := func(when string, good bool, says string) {
		t.Helper()
		if s := ask(body("shop", "good.example/a:1")); s.Allowed != good || !strings.Contains(s.Reason, says) {
			t.Errorf("%s: ours: %+v", when, s)
		}
		if s := ask(body("shop", "evil.example/a:1")); s.Allowed {
			t.Errorf("%s: not ours: %+v", when, s)
		}
		if s := ask(body("kube-system", "evil.example/a:1")); !s.Allowed {
			t.Errorf("%s: kube-system: %+v", when, s)
		}
	}
	check("without a configuration", false, "there is no CA yet")
	configured = true
	check("with one", true, "")
	stop()
	check("while the server is away", false, "couldn't ask Gatehouse")
	for _, bad := range []string{"", "{", "[]", `{"kind":"x"}`} {
		if s := ask(bad); s.Allowed {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

func credentialRequest(image, token string) string {
	return fmt.Sprintf(`{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderRequest","image":%q,"serviceAccountToken":%q}`, image, token)
}

// TestProvide: a login for its own registry, if the image may run, and for no other.
func TestProvide(t *testing.T) {
	a, stop := asker(t)
	p := &node.Provider{Asker: a, Logins: []node.Login{
		{Registry: "good.example", Auth: node.Auth{Username: "node", Password: "secret"}},
		{Registry: "evil.example", Auth: node.Auth{Username: "node", Password: "other"}},
		{Registry: "good.example:5000", Auth: node.Auth{Username: "sa"}, Token: true},
	}}
	provide := func(in string) (node.CredentialResponse, error) { return p.Provide(t.Context(), strings.NewReader(in)) }
	out, err := provide(credentialRequest("good.example/a:1", ""))
	if err != nil || len(out.Auth) != 1 || out.Auth["good.example"].Password != "secret" || out.CacheKeyType != "Image" || out.Kind != "CredentialProviderResponse" {
		t.Fatalf("%+v %v", out, err)
	}
	for in, code := range map[string]gatehouse.Code{
		credentialRequest("evil.example/a:1", ""):           gatehouse.CodeDenied,
		credentialRequest("third.example/a:1", ""):          gatehouse.CodeNotFound,
		credentialRequest("good.example:5000/a:1", ""):      gatehouse.CodeNotFound,
		credentialRequest("good.example:5000/a:1", "a.b.c"): gatehouse.CodeDenied, // the policy knows good.example only
		credentialRequest("", ""):                           gatehouse.CodeInvalid,
		`{}`:                                                gatehouse.CodeInvalid,
		`{`:                                                 gatehouse.CodeInvalid,
		strings.Repeat(" ", 2<<20):                          gatehouse.CodeInvalid,
		strings.Replace(credentialRequest("good.example/a:1", ""), "/v1", "/v2", 1): gatehouse.CodeInvalid,
	} {
		if out, err := provide(in); gatehouse.CodeOf(err) != code || len(out.Auth) != 0 {
			t.Errorf("%.120s: %+v %v", in, out, err)
		}
	}
	stop()
	if out, err := provide(credentialRequest("good.example/a:1", "")); gatehouse.CodeOf(err) != gatehouse.CodeDenied || len(out.Auth) != 0 {
		t.Errorf("while the server is away: %+v %v", out, err)
	}
}

// FuzzProvide: no question makes it hand out what it was not asked for.
func FuzzProvide(f *testing.F) {
	f.Add([]byte(credentialRequest("good.example/a:1", "x")))
	f.Fuzz(func(t *testing.T, in []byte) {
		p := &node.Provider{Asker: &node.Asker{Always: admit.Always{Digests: admit.PauseDigests()}}, Logins: []node.Login{{Registry: "good.example", Auth: node.Auth{Password: "secret"}}}}
		out, err := p.Provide(t.Context(), bytes.NewReader(in))
		if err == nil && (len(out.Auth) != 1 || !bytes.Contains(in, []byte("sha256:"))) {
			t.Errorf("%+v", out)
		}
	})
}
