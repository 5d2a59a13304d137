package admit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
)

type pinnerFunc func(context.Context, gatehouse.Request) ([]admit.Pin, error)

func (f pinnerFunc) Pin(ctx context.Context, req gatehouse.Request) ([]admit.Pin, error) {
	return f(ctx, req)
}

type mutation struct {
	UID              string
	Allowed          bool
	Patch            []byte
	PatchType        string
	AuditAnnotations map[string]string
}

func mutate(t *testing.T, p admit.Pinner, body string) mutation {
	t.Helper()
	req := httptest.NewRequest("POST", "/mutate?timeout=5s", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	admit.New(admit.Options{Pinner: p}).Mutate(w, req)
	var answer struct{ Response mutation }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return answer.Response
}

func podReview(subResource, metadata string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","subResource":%q,
		"kind":{"group":"","version":"v1","kind":"Pod"},"object":{"apiVersion":"v1","kind":"Pod","metadata":%s,"spec":{"containers":[{"image":"a"},{"image":"r.example/b:1"}]}}}}`, subResource, metadata)
}

// TestMutatePins: the patch tests what it replaces, and notes what stood there
// beside what an earlier pass has noted.
func TestMutatePins(t *testing.T) {
	pins := pinnerFunc(func(_ context.Context, req gatehouse.Request) ([]admit.Pin, error) {
		if req.UID != "u" || req.Mutated || len(req.Review) == 0 {
			return nil, fmt.Errorf("asked with %+v", req)
		}
		return []admit.Pin{{Field: "spec.containers[1].image", Written: "r.example/b:1", Image: "r.example/b:1@sha256:00"}}, nil
	})
	image := `{"op":"test","path":"/spec/containers/1/image","value":"r.example/b:1"},{"op":"replace","path":"/spec/containers/1/image","value":"r.example/b:1@sha256:00"}`
	const noted = `{\"spec.containers[1].image\":\"r.example/b:1\"}`
	for name, tt := range map[string]struct{ sub, metadata, want string }{
		"no annotations": {"", `{}`, `[` + image + `,{"op":"add","path":"/metadata/annotations","value":{"gatehouse.dev/original-images":"` + noted + `"}}]`},
		"annotations":    {"", `{"annotations":{"a":"b"}}`, `[` + image + `,{"op":"add","path":"/metadata/annotations/gatehouse.dev~1original-images","value":"` + noted + `"}]`},
		"second pass": {
			"", `{"annotations":{"gatehouse.dev/original-images":"{\"spec.containers[0].image\":\"a\",\"spec.containers[1].image\":\"x\"}"}}`,
			`[` + image + `,{"op":"add","path":"/metadata/annotations/gatehouse.dev~1original-images","value":"{\"spec.containers[0].image\":\"a\",\"spec.containers[1].image\":\"r.example/b:1\"}"}]`,
		},
		"forged annotation": {"", `{"annotations":{"gatehouse.dev/original-images":"no JSON"}}`, `[` + image + `,{"op":"add","path":"/metadata/annotations/gatehouse.dev~1original-images","value":"` + noted + `"}]`},
		"subresource":       {"ephemeralcontainers", `{}`, `[` + image + `]`},
	} {
		t.Run(name, func(t *testing.T) {
			r := mutate(t, pins, podReview(tt.sub, tt.metadata))
			if !r.Allowed || r.UID != "u" || r.PatchType != "JSONPatch" || r.AuditAnnotations["pinned"] != "1" {
				t.Errorf("%+v", r)
			}
			if diff := cmp.Diff(tt.want, string(r.Patch)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestMutateFaults: whatever goes wrong leaves the object as it is, for the
// validating webhook to judge, and says so in the audit log.
func TestMutateFaults(t *testing.T) {
	body := podReview("", `{}`)
	for name, p := range map[string]pinnerFunc{
		"error": func(context.Context, gatehouse.Request) ([]admit.Pin, error) { return nil, errors.New("secret") },
		"panic": func(context.Context, gatehouse.Request) ([]admit.Pin, error) { panic("x") },
	} {
		t.Run(name, func(t *testing.T) {
			r := mutate(t, p, body)
			if !r.Allowed || r.Patch != nil || r.PatchType != "" || !strings.HasPrefix(r.AuditAnnotations["pinned"], "failed") || strings.Contains(fmt.Sprint(r), "secret") {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			end := make(chan struct{})
			r := mutate(t, pinnerFunc(func(context.Context, gatehouse.Request) ([]admit.Pin, error) { <-end; return nil, nil }), body)
			if !r.Allowed || r.Patch != nil || !strings.HasPrefix(r.AuditAnnotations["pinned"], "failed") {
				t.Errorf("%+v", r)
			}
			close(end)
			synctest.Wait()
		})
	})
	t.Run("no object", func(t *testing.T) {
		r := mutate(t, nil, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE"}}`)
		if r.Allowed {
			t.Errorf("%+v", r)
		}
	})
}
