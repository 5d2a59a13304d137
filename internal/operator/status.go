package operator

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// Status is what became of a policy.
type Status struct {
	// Problem is why it does not count as it stands; empty: it does.
	Problem string
}

// Conditions that policy-controller has on a ClusterImagePolicy, which tools wait for.
var (
	readyOnly     = []string{"Ready"}
	sigstoreTypes = []string{"Ready", "KeysInlined", "PoliciesInlined", "ConfigMapUpdated"}
)

// messageMax bounds the message of a condition, in bytes.
const messageMax = 4_000

// status writes what became of each policy where that is another than before.
func (k *Keeper) status(ctx context.Context) error {
	if k.o.Status == nil {
		return nil
	}
	all, err := k.o.Status(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for r, objects := range k.o.View.byResource() {
		for _, o := range objects {
			s, known := all[documentPath(o)]
			if !known || !k.lease.held() {
				continue
			}
			patch, changed := s.patch(o, k.o.Now())
			if !changed {
				continue
			}
			err := k.o.Client.MergeStatus(ctx, r, "", o.GetName(), patch)
			if gatehouse.CodeOf(err) != gatehouse.CodeNotFound { // it is gone, or has no status
				failed = append(failed, err)
			}
		}
	}
	for path, s := range all { // these have no status
		if strings.HasPrefix(path, PolicyPath+"ConfigMap/") {
			var err error
			if s.Problem != "" {
				err = errors.New(clip(s.Problem, messageMax))
			}
			k.o.View.complain(ctx, "read "+path, err)
		}
	}
	return errors.Join(failed...)
}

// patch is what the status of a policy has to hold; changed: it does not.
func (s Status) patch(o *kube.Object, now time.Time) (patch map[string]any, changed bool) {
	if group := groupOf(o); group == groupTemplates || group == groupConstraints {
		return s.gatekeeperStatus(o)
	}
	conditions, changed := s.conditions(o, now)
	return map[string]any{"observedGeneration": o.GetGeneration(), "conditions": conditions}, changed
}

// conditions are those of a policy; changed: its own are others.
func (s Status) conditions(o *kube.Object, now time.Time) (out []any, changed bool) {
	types := readyOnly
	if o.GetKind() == "ClusterImagePolicy" {
		types = sigstoreTypes
	}
	value, reason, message := "True", "Loaded", ""
	if s.Problem != "" {
		value, reason, message = "False", "Invalid", clip(s.Problem, messageMax)
	}
	status, _ := o.Object["status"].(map[string]any)
	list, _ := status["conditions"].([]any)
	old := map[string]map[string]any{}
	for _, item := range list {
		if c, ok := item.(map[string]any); ok {
			name, _ := c["type"].(string)
			old[name] = c
		}
	}
	generation, _ := status["observedGeneration"].(int64)
	changed = generation != o.GetGeneration()
	for _, name := range types {
		at := now.UTC().Format(time.RFC3339)
		before := old[name]
		if before["status"] == value {
			if t, ok := before["lastTransitionTime"].(string); ok {
				at = t
			}
		}
		was, _ := before["message"].(string)
		if before["status"] != value || was != message {
			changed = true
		}
		c := map[string]any{"type": name, "status": value, "lastTransitionTime": at, "reason": reason}
		if message != "" {
			c["message"] = message
		}
		out = append(out, c)
	}
	return out, changed
}

// clip shortens a text at a character's end. What is no UTF-8 the API server would keep
// otherwise than it was sent, so that it is another each time that it is compared.
func clip(s string, max int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max] + "…"
}
