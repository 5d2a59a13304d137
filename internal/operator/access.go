package operator

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// reviews are questions to the cluster: they are created and never kept.
var reviews = kube.Resource{Group: "authorization.k8s.io", Version: "v1", Resource: "subjectaccessreviews"}

// Access is something that somebody may do in a namespace.
type Access struct {
	Namespace, Verb, Group, Resource string
}

// Allowed asks the cluster whether user may do it, as the function [Allowed] does, apart
// from what the view asks for itself.
func (v *View) Allowed(ctx context.Context, user gatehouse.User, a Access) (bool, error) {
	return Allowed(ctx, v.asks, user, a)
}

// Allowed asks the cluster, by a SubjectAccessReview, whether user may do it. What the
// cluster does not answer is an error, never a yes. Errors: those of the API server.
func Allowed(ctx context.Context, c *kube.Client, user gatehouse.User, a Access) (bool, error) {
	spec := map[string]any{
		"user": user.Name,
		"resourceAttributes": map[string]any{
			"namespace": a.Namespace, "verb": a.Verb, "group": a.Group, "resource": a.Resource,
		},
	}
	if user.UID != "" {
		spec["uid"] = user.UID
	}
	if len(user.Groups) > 0 {
		spec["groups"] = anys(user.Groups)
	}
	if len(user.Extra) > 0 { // it may narrow what a login is good for
		extra := map[string]any{}
		for key, values := range user.Extra {
			extra[key] = anys(values)
		}
		spec["extra"] = extra
	}
	// The API server takes no metadata here, not even labels.
	answer, err := c.Create(ctx, reviews, &kube.Object{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec,
	}})
	if err != nil {
		return false, err
	}
	status, _ := answer.Object["status"].(map[string]any)
	allowed, _ := status["allowed"].(bool)
	denied, _ := status["denied"].(bool)
	return allowed && !denied, nil
}
