package quickstart

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// patience is how long the story waits for something that takes moments.
const patience = 30 * time.Second

// verdict is the part of GET /api/v1/verdicts that the story tells.
type verdict struct {
	Digest   gatehouse.Digest
	Verdict  gatehouse.Verdict
	Findings struct {
		Indexed  bool
		Complete bool
		Summary  struct{ Critical, High int }
	}
}

// scanReport is the part of GET /api/v1/reports that the story tells.
type scanReport struct {
	Findings []struct {
		ID, Severity, FixedVersion string
		Package                    struct{ Name, Version string }
	}
}

// call asks the API as an administrator.
func (s *story) call(ctx context.Context, method, path string, body []byte, out any) error {
	answer, code, err := s.send(ctx, method, s.url+path, body)
	if err != nil {
		return err
	}
	if code >= 300 {
		return fmt.Errorf("%s %s: %d: %s", method, path, code, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

func (s *story) send(ctx context.Context, method, url string, body []byte) (answer []byte, code int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.SetBasicAuth("admin", s.password)
	req.Header.Set("Content-Type", "application/json")
	res, err := s.http.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, 16<<20))
	return answer, res.StatusCode, err
}

func (s *story) waitReady(ctx context.Context) error {
	return s.wait(ctx, "the server to be ready", func() (bool, error) {
		_, code, err := s.send(ctx, http.MethodGet, s.url+"/readyz", nil)
		return code == http.StatusOK, err
	})
}

// indexed waits until the server has looked inside the image.
func (s *story) indexed(ctx context.Context, img image) (v verdict, err error) {
	err = s.wait(ctx, img.String()+" to be indexed", func() (bool, error) {
		v, err = s.verdict(ctx, img)
		return v.Findings.Indexed, err
	})
	return v, err
}

func (s *story) verdict(ctx context.Context, img image) (v verdict, err error) {
	err = s.call(ctx, http.MethodGet, "/api/v1/verdicts?reference="+img.String(), nil, &v)
	return v, err
}

func (s *story) wait(ctx context.Context, what string, ok func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for {
		yes, err := ok()
		if yes || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "waited %s in vain for %s", patience, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// review sends a Pod through both webhooks, as the API server of a cluster would:
// the first writes the digest beside the tag, the second decides.
func (s *story) review(ctx context.Context, name, img string) (allowed bool, message string, err error) {
	first, err := s.ask(ctx, "/mutate", name, img)
	if err != nil {
		return false, "", err
	}
	var steps []struct {
		Op, Path string
		Value    any
	}
	if len(first.Patch) > 0 {
		if err := json.Unmarshal(first.Patch, &steps); err != nil {
			return false, "", fmt.Errorf("the webhook's patch: %w", err)
		}
	}
	for _, step := range steps {
		if image, ok := step.Value.(string); ok && step.Op == "replace" && step.Path == "/spec/containers/0/image" {
			img = image
		}
	}
	second, err := s.ask(ctx, "/validate", name, img)
	return second.Allowed, second.Status.Message, err
}

// answer is the response of a webhook.
type answer struct {
	UID     string
	Allowed bool
	Patch   []byte // JSON Patch
	Status  struct{ Message string }
}

func (s *story) ask(ctx context.Context, path, name, img string) (answer, error) {
	type object = map[string]any
	pod := object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name, "namespace": "shop"},
		"spec": object{"containers": []object{{"name": "main", "image": img}}},
	}
	body, err := json.Marshal(object{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": object{
			"uid": "quickstart-" + name, "operation": "CREATE", "name": name, "namespace": "shop",
			"kind":     object{"group": "", "version": "v1", "kind": "Pod"},
			"resource": object{"group": "", "version": "v1", "resource": "pods"},
			"userInfo": object{"username": "developer"}, "object": pod,
		},
	})
	if err != nil {
		return answer{}, err
	}
	reply, code, err := s.send(ctx, http.MethodPost, s.webhook+path, body)
	if err != nil {
		return answer{}, err
	}
	var review struct{ Response answer }
	if err := json.Unmarshal(reply, &review); err != nil || code != http.StatusOK || review.Response.UID != "quickstart-"+name {
		return answer{}, fmt.Errorf("the webhook answered %d: %.500s", code, reply)
	}
	return review.Response, nil
}
