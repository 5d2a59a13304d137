package admit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// reviewVersion is the only version of AdmissionReview that is spoken;
// v1beta1 went away with Kubernetes 1.22.
const reviewVersion = "admission.k8s.io/v1"

// review is an AdmissionReview as it is answered. These types are our own, so that
// a few fields do not bring all of the Kubernetes API with them.
type review struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Response   *reviewResponse `json:"response,omitempty"`
}

// reviewRequest is the part of an AdmissionRequest that is read by name. raw is all
// of it, for policies that read more (options, requestKind).
type reviewRequest struct {
	raw         json.RawMessage
	UID         string
	Kind        gatehouse.ObjectKind
	Resource    gatehouse.ObjectResource
	SubResource string
	Name        string
	Namespace   string
	Operation   string
	UserInfo    gatehouse.User
	DryRun      bool
	Object      json.RawMessage
	OldObject   json.RawMessage
}

type reviewResponse struct {
	UID              string            `json:"uid"`
	Allowed          bool              `json:"allowed"`
	Status           *status           `json:"status,omitempty"`
	Patch            []byte            `json:"patch,omitempty"` // base64 in JSON
	PatchType        string            `json:"patchType,omitempty"`
	Warnings         []string          `json:"warnings,omitempty"`
	AuditAnnotations map[string]string `json:"auditAnnotations,omitempty"`
}

// status is metav1.Status: inside a response, and as the whole answer to what
// is no review.
type status struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Status     string `json:"status,omitempty"`
	Message    string `json:"message"`
	Reason     string `json:"reason,omitempty"`
	Code       int    `json:"code"`
}

// parse reads a review and checks what the protocol demands of every request.
// Errors: CodeInvalid.
func parse(body []byte) (*reviewRequest, error) {
	parts, err := fields(body, "the body is not an AdmissionReview")
	if err != nil {
		return nil, err
	}
	var kind, version string
	if err := parts.read(into{"kind", &kind}, into{"apiVersion", &version}); err != nil {
		return nil, err
	}
	if kind != "AdmissionReview" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the body is a %q, not an AdmissionReview", clip(kind, 100))
	}
	if version != reviewVersion {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "AdmissionReview of version %q is not supported; set admissionReviewVersions to [v1]", clip(version, 100))
	}
	if absent(parts["request"]) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the AdmissionReview has no request")
	}
	r := &reviewRequest{raw: parts["request"]}
	if parts, err = split(r.raw, "the request of the AdmissionReview cannot be read"); err != nil {
		return nil, err
	}
	err = parts.read(into{"uid", &r.UID}, into{"kind", &r.Kind}, into{"resource", &r.Resource}, into{"subResource", &r.SubResource},
		into{"name", &r.Name}, into{"namespace", &r.Namespace}, into{"operation", &r.Operation}, into{"userInfo", &r.UserInfo}, into{"dryRun", &r.DryRun})
	if err != nil {
		return nil, err
	}
	if r.UID == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the request of the AdmissionReview has no uid")
	}
	r.Object, r.OldObject = parts["object"], parts["oldObject"]
	return r, nil
}

// parts are the fields of a JSON object under their exact names.
type parts map[string]json.RawMessage

// fieldsMax bounds the fields of an envelope; the protocol has fewer than 20.
const fieldsMax = 100

// fieldsUsual is how many a request has.
const fieldsUsual = 15

// fields reads the fields of a JSON object; their values are parts of b. Unlike
// encoding/json it takes no other spelling for a name, and no name twice: what is
// judged, what policies see in the whole review and what the API server meant must be
// one thing. Errors: CodeInvalid.
func fields(b []byte, what string) (parts, error) {
	if !json.Valid(b) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %w", what, notJSON(b))
	}
	return split(b, what)
}

// Fields are the fields of a JSON object as they are written in b, each of which is
// there once. Errors: CodeInvalid.
func Fields(b []byte) (map[string]json.RawMessage, error) { return fields(b, "the object") }

// split is fields for what is known to be JSON.
func split(b []byte, what string) (parts, error) {
	at := space(b, 0)
	if b[at] != '{' {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: it is not a JSON object", what)
	}
	out := make(parts, fieldsUsual)
	for at = space(b, at+1); b[at] != '}'; {
		end := value(b, at)
		name, err := text(b[at:end])
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %w", what, err)
		}
		at = space(b, space(b, end)+1) // behind the colon
		end = value(b, at)
		if _, twice := out[name]; twice || len(out) >= fieldsMax {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: it has %q twice, or more than %d fields", what, clip(name, 100), fieldsMax)
		}
		out[name] = b[at:end:end]
		if at = space(b, end); b[at] == ',' {
			at = space(b, at+1)
		}
	}
	return out, nil
}

// notJSON says in the words of encoding/json what is wrong with b.
func notJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	err := d.Decode(new(json.RawMessage))
	switch err {
	case nil:
		return errors.New("something follows it")
	case io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// space returns where the space at a place of b ends. What follows is known to be JSON.
func space(b []byte, at int) int {
	for b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r' {
		at++
	}
	return at
}

// value returns where the value at a place of b ends, which is known to be JSON and in
// an object.
func value(b []byte, at int) int {
	depth := 0
	for {
		switch c := b[at]; c {
		case '"':
			for at++; b[at] != '"'; at++ {
				if b[at] == '\\' {
					at++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if at++; depth == 0 && ends(b[at]) {
			return at
		}
	}
}

// ends reports whether a byte behind a value, or within a literal, is behind it.
func ends(c byte) bool {
	switch c {
	case ',', '}', ']', ':', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}

// into says where a field goes.
type into struct {
	name string
	to   any
}

func (p parts) read(list ...into) error {
	for _, f := range list {
		raw, ok := p[f.name]
		if !ok {
			continue
		}
		if err := exactly(raw, f.to); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s of the AdmissionReview is of another type: %w", f.name, err)
		}
	}
	return nil
}

// check says what is missing for a decision. Such a review is answered, by its
// uid, with a denial.
func (r *reviewRequest) check() error {
	switch r.Operation {
	case "CREATE", "UPDATE":
		if absent(r.Object) {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the AdmissionReview has no object, which %s needs", r.Operation)
		}
	case "DELETE", "CONNECT":
	default:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the AdmissionReview has the unknown operation %q", clip(r.Operation, 40))
	}
	return nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// request is the review in the words of the house.
func (r *reviewRequest) request(now time.Time) gatehouse.Request {
	req := gatehouse.Request{
		UID: r.UID, Kind: r.Kind, Resource: r.Resource, SubResource: r.SubResource, Operation: r.Operation, DryRun: r.DryRun,
		Name: r.Name, Namespace: r.Namespace, User: r.UserInfo, Review: r.raw, Now: now,
	}
	if !absent(r.Object) {
		req.Object = r.Object
	}
	if !absent(r.OldObject) {
		req.OldObject = r.OldObject
	}
	return req
}

func clip(s string, max int) string {
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
