package admit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
)

const ownImage = "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"

func newDoors(t testing.TB, d admit.Decider) http.Handler {
	t.Helper()
	if d == nil {
		set, problems := load.Load([]load.File{{Path: "p.yaml", Data: []byte(policies)}}, gatehouse.Deny)
		if !set.Complete {
			t.Fatal(problems)
		}
		d = decider{set}
	}
	mux := http.NewServeMux()
	admit.NewDoors(admit.DoorOptions{
		Decider: d, Now: func() time.Time { return time.Unix(1_700_000_000, 0).UTC() },
		Always: admit.Always{Digests: append(admit.PauseDigests(), ownImage), Namespaces: []string{"kube-system"}},
	}).Register(mux)
	return mux
}

func post(t testing.TB, h http.Handler, path, body string) (int, string) {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

func imageReview(namespace string, images ...string) string {
	b, err := json.Marshal(admit.NewImageReview(namespace, images...))
	if err != nil {
		panic(err) // texts always marshal
	}
	return string(b)
}

// TestImageReview: an ImagePolicyWebhook has the answers of the policies; the list is
// let through; annotations, which the API server hands on, open nothing.
func TestImageReview(t *testing.T) {
	h := newDoors(t, nil)
	for name, tt := range map[string]struct {
		body    string
		allowed bool
		says    string
	}{
		"allowed":            {imageReview("shop", "good.example/a:1"), true, ""},
		"no policy":          {imageReview("shop", "evil.example/a:1"), false, "no matching policies"},
		"one of two":         {imageReview("shop", "good.example/a:1", "evil.example/a:1"), false, "evil.example/a:1"},
		"warned":             {imageReview("shop", "good.example/old/a:1"), true, "moves to good.example/new"},
		"own image":          {imageReview("shop", "any.example/gatehouse@"+ownImage), true, ""},
		"own image and evil": {imageReview("shop", "any.example/gatehouse@"+ownImage, "evil.example/a:1"), false, "evil.example/a:1"},
		"own name by tag":    {imageReview("shop", "any.example/gatehouse:v1"), false, "no matching policies"},
		"pause":              {imageReview("shop", "registry.k8s.io/pause@"+string(admit.PauseDigests()[0])), true, ""},
		"kube-system":        {imageReview("kube-system", "evil.example/a:1"), true, ""},
		"like kube-system":   {imageReview("kube-system2", "evil.example/a:1"), false, "no matching policies"},
		"annotation": {`{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","spec":{"namespace":"shop","containers":[{"image":"evil.example/a:1"}],
			"annotations":{"alpha.image-policy.k8s.io/break-glass":"true","gatehouse.dev/break-glass":"gbg_X"}}}`, false, "no matching policies"},
		"no containers":   {imageReview("shop"), false, "neither an object nor an image"},
		"no reference":    {imageReview("shop", "good.example/a b"), false, "reference-invalid"},
		"no image at all": {imageReview("shop", ""), false, "names no image"},
	} {
		code, body := post(t, h, "/image-review", tt.body)
		var out admit.ImageReview
		if err := json.Unmarshal([]byte(body), &out); err != nil || code != http.StatusOK || out.Status == nil || out.Kind != "ImageReview" || out.APIVersion != admit.ImageReviewVersion {
			t.Fatalf("%s: %d %s", name, code, body)
		}
		if out.Status.Allowed != tt.allowed || !strings.Contains(out.Status.Reason, tt.says) {
			t.Errorf("%s: %+v", name, out.Status)
		}
	}
	for _, body := range []string{`{}`, `[]`, ``, `{"kind":"ImageReview","apiVersion":"imagepolicy.k8s.io/v2","spec":{}}`, `{"kind":"ImageReview","apiVersion":"imagepolicy.k8s.io/v1alpha1"}`,
		imageReview("shop", make([]string, 501)...)} {
		if code, answer := post(t, h, "/image-review", body); code != http.StatusBadRequest || !strings.Contains(answer, `"Failure"`) {
			t.Errorf("%.60s: %d %s", body, code, answer)
		}
	}
}

// TestDoorsFailClosed: whatever a Decider does, the answer is no.
func TestDoorsFailClosed(t *testing.T) {
	for name, f := range map[string]deciderFunc{
		"panic":         func(context.Context, gatehouse.Request) gatehouse.Decision { panic("x") },
		"zero decision": func(context.Context, gatehouse.Request) gatehouse.Decision { return gatehouse.Decision{} },
		"unknown":       func(context.Context, gatehouse.Request) gatehouse.Decision { return gatehouse.Decision{Verdict: 7} },
	} {
		h := newDoors(t, f)
		if _, body := post(t, h, "/image-review", imageReview("shop", "good.example/a:1")); !strings.Contains(body, `"allowed":false`) {
			t.Errorf("%s: %s", name, body)
		}
		if _, body := post(t, h, "/external-data", keys("good.example/a:1")); !strings.Contains(body, `"error":"`) || strings.Contains(body, `"value"`) {
			t.Errorf("%s: %s", name, body)
		}
	}
}

func keys(list ...string) string {
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // as above
	}
	return fmt.Sprintf(`{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":%s}}`, b)
}

// TestExternalData: each key has its own answer, in the order of the keys; what is
// denied is an error to a template.
func TestExternalData(t *testing.T) {
	h := newDoors(t, nil)
	type response struct {
		APIVersion, Kind string
		Response         struct {
			Idempotent bool
			Items      []struct {
				Key, Error string
				Value      json.RawMessage
			}
			SystemError string
		}
	}
	ask := func(path, body string) (r response) {
		code, answer := post(t, h, path, body)
		if err := json.Unmarshal([]byte(answer), &r); err != nil || code != http.StatusOK || r.Kind != "ProviderResponse" {
			t.Fatalf("%d %s", code, answer)
		}
		return r
	}
	r := ask("/external-data", keys("good.example/a:1", "evil.example/a:1", "x.example/own@"+ownImage))
	items := r.Response.Items
	if r.APIVersion != "externaldata.gatekeeper.sh/v1beta1" || !r.Response.Idempotent || r.Response.SystemError != "" || len(items) != 3 {
		t.Fatalf("%+v", r)
	}
	if items[0].Key != "good.example/a:1" || items[0].Error != "" || !strings.Contains(string(items[0].Value), `"verdict":"allow"`) {
		t.Errorf("allowed: %+v %s", items[0], items[0].Value)
	}
	if items[1].Key != "evil.example/a:1" || !strings.Contains(items[1].Error, "no matching policies") || items[1].Value != nil {
		t.Errorf("denied: %+v", items[1])
	}
	if items[2].Error != "" || !strings.Contains(string(items[2].Value), ownImage) {
		t.Errorf("on the list: %+v %s", items[2], items[2].Value)
	}
	r = ask("/external-data?value=image", keys("good.example/a@"+ownImage, "good.example/a:1"))
	if string(r.Response.Items[0].Value) != `"good.example/a@`+ownImage+`"` || r.Response.Items[1].Error == "" {
		t.Errorf("as images: %+v", r.Response.Items)
	}
	for _, body := range []string{`{}`, strings.Replace(keys("a"), "v1beta1", "v9", 1), keys(make([]string, 501)...)} {
		if r := ask("/external-data", body); r.Response.SystemError == "" || len(r.Response.Items) != 0 {
			t.Errorf("%.60s: %+v", body, r)
		}
	}
	if r := ask("/external-data", strings.Replace(keys("good.example/a:1"), "v1beta1", "v1alpha1", 1)); r.APIVersion != "externaldata.gatekeeper.sh/v1alpha1" || len(r.Response.Items) != 1 {
		t.Errorf("the older version: %+v", r)
	}
}

// FuzzDoors: whatever is asked has an answer, and an image that no policy names and
// that is not on the list is never let through.
func FuzzDoors(f *testing.F) {
	f.Add("/image-review", []byte(imageReview("shop", "evil.example/a:1")))
	f.Add("/external-data", []byte(keys("evil.example/a:1")))
	h := newDoors(f, nil)
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		if path != "/image-review" {
			path = "/external-data"
		}
		code, answer := post(t, h, path, string(body))
		if !json.Valid([]byte(answer)) || code != http.StatusOK && code != http.StatusBadRequest {
			t.Fatalf("%d %s", code, answer)
		}
		var out admit.ImageReview
		if path != "/image-review" || json.Unmarshal([]byte(answer), &out) != nil || out.Status == nil || !out.Status.Allowed {
			return
		}
		var in admit.ImageReview
		if err := json.Unmarshal(body, &in); err != nil {
			t.Fatal(err)
		}
		for _, c := range in.Spec.Containers {
			if strings.HasPrefix(c.Image, "evil.example/") && !strings.Contains(c.Image, "@sha256:") && in.Spec.Namespace != "kube-system" {
				t.Fatalf("let through: %s", body)
			}
		}
	})
}
