package admit

import (
	"encoding/json"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// reviewVersion is the only version of AdmissionReview that is spoken;
// v1beta1 went away with Kubernetes 1.22.
const reviewVersion = "admission.k8s.io/v1"

// review is the part of admission.k8s.io/v1 AdmissionReview that is read.
// These types are our own, so that a few fields do not bring all of the
// Kubernetes API with them.
type review struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Request    *reviewRequest  `json:"request,omitempty"`
	Response   *reviewResponse `json:"response,omitempty"`
}

type reviewRequest struct {
	UID         string               `json:"uid"`
	Kind        gatehouse.ObjectKind `json:"kind"`
	SubResource string               `json:"subResource,omitempty"`
	Name        string               `json:"name,omitempty"`
	Namespace   string               `json:"namespace,omitempty"`
	Operation   string               `json:"operation"`
	UserInfo    gatehouse.User       `json:"userInfo"`
	Object      json.RawMessage      `json:"object,omitempty"`
	OldObject   json.RawMessage      `json:"oldObject,omitempty"`
}

type reviewResponse struct {
	UID              string            `json:"uid"`
	Allowed          bool              `json:"allowed"`
	Status           *status           `json:"status,omitempty"`
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
	var r review
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the body is not an AdmissionReview: %w", err)
	}
	if r.Kind != "AdmissionReview" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the body is a %q, not an AdmissionReview", clip(r.Kind, 100))
	}
	if r.APIVersion != reviewVersion {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "AdmissionReview of version %q is not supported; set admissionReviewVersions to [v1]", clip(r.APIVersion, 100))
	}
	if r.Request == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the AdmissionReview has no request")
	}
	if r.Request.UID == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the request of the AdmissionReview has no uid")
	}
	return r.Request, nil
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
		UID: r.UID, Kind: r.Kind, Operation: r.Operation, Name: r.Name, Namespace: r.Namespace,
		User: r.UserInfo, Now: now,
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
