package admit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// OriginalAnnotation keeps, on what Mutate changes, the images as they were written,
// as a JSON object by field. It is for people: nothing believes it.
const OriginalAnnotation = "gatehouse.dev/original-images"

// Mutate answers one review of a MutatingWebhookConfiguration: it lets everything
// through, with a JSON Patch (RFC 6902) that writes digests beside tags. What it
// cannot find out it leaves as it is; [Handler.Validate] refuses that where a policy
// wants to know.
func (h *Handler) Mutate(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, func(ctx context.Context, req gatehouse.Request, size int64) *reviewResponse {
		out := &reviewResponse{UID: req.UID, Allowed: true}
		if h.Pinner == nil || len(req.Object) == 0 {
			return out
		}
		type answer struct {
			pins []Pin
			err  error
		}
		a, failure := within(ctx, h.Room, size, func() answer {
			pins, err := h.Pinner.Pin(ctx, req)
			return answer{pins, err}
		})
		problem := a.err
		if failure != nil {
			problem = gatehouse.Errorf(gatehouse.CodeUnavailable, "pinning %s", failure.message)
		}
		if problem == nil && len(a.pins) > 0 {
			out.Patch, problem = patch(req, a.pins)
			out.PatchType = "JSONPatch"
		}
		switch {
		case problem != nil:
			out.Patch, out.PatchType = nil, ""
			out.AuditAnnotations = map[string]string{"pinned": clip(printable("failed: "+string(gatehouse.CodeOf(problem))), messageMax)}
		case len(a.pins) > 0:
			out.AuditAnnotations = map[string]string{"pinned": fmt.Sprint(len(a.pins))}
		}
		return out
	})
}

// operation is one step of a JSON Patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patch writes pins. Each is tested first: the API server refuses the patch where
// the object is another than the one that was looked at.
func patch(req gatehouse.Request, pins []Pin) ([]byte, error) {
	var ops []operation
	written := map[string]string{}
	for _, p := range pins {
		path := pointer(p.Field)
		ops = append(ops, operation{"test", path, p.Written}, operation{"replace", path, p.Image})
		written[p.Field] = p.Written
	}
	// A subresource takes no metadata.
	if req.SubResource == "" {
		annotate, err := annotation(req.Object, written)
		if err != nil {
			return nil, err
		}
		ops = append(ops, annotate...)
	}
	return json.Marshal(ops)
}

// annotation keeps what was written, with what an earlier pass (a webhook may be
// called again, an object updated) has noted of other fields.
func annotation(object []byte, written map[string]string) ([]operation, error) {
	var obj struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(object, &obj); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the metadata of the object cannot be read: %w", err)
	}
	var before map[string]string
	if json.Unmarshal([]byte(obj.Metadata.Annotations[OriginalAnnotation]), &before) == nil && len(before) <= originalsMax {
		for field, image := range before {
			if _, ok := written[field]; !ok {
				written[field] = image
			}
		}
	}
	value, err := json.Marshal(written)
	if err != nil {
		return nil, err
	}
	if obj.Metadata.Annotations == nil {
		return []operation{{"add", "/metadata/annotations", map[string]string{OriginalAnnotation: string(value)}}}, nil
	}
	return []operation{{"add", "/metadata/annotations/" + strings.ReplaceAll(OriginalAnnotation, "/", "~1"), string(value)}}, nil
}

// originalsMax bounds what is taken over from an annotation, which anybody writes.
const originalsMax = 200

// pointer turns the field of an image into a JSON Pointer (RFC 6901).
func pointer(field string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1", "[", "/", "]", "", ".", "/").Replace(field)
}
