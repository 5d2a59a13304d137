package operator

import (
	"context"
	"errors"
	"fmt"
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
	// Unasked are resources that a constraint names and that the cluster does not ask
	// us about; Idle: it asks about none.
	Unasked []string
	Idle    bool
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
			if isConstraint(o) {
				asked := false
				s.Unasked, asked = k.o.Webhook.unasked(o)
				s.Idle = !asked
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
	return errors.Join(append(failed, k.maps(ctx, all))...)
}

// reasonInvalid is that of Events about ConfigMaps whose policies do not count as they
// stand.
const reasonInvalid = "PolicyInvalid"

// maps tells what became of the policies in ConfigMaps, which have no status: in the log,
// and by an Event of the ConfigMap, once for each thing that is wrong.
func (k *Keeper) maps(ctx context.Context, all map[string]Status) error {
	var failed []error
	for path, s := range all {
		entry, isMap := strings.CutPrefix(path, PolicyPath+"ConfigMap/")
		if !isMap {
			continue
		}
		if s.Problem == "" {
			delete(k.told, path)
			k.o.View.complain(ctx, "read "+path, nil)
			continue
		}
		problem := clip(s.Problem, messageMax)
		k.o.View.complain(ctx, "read "+path, errors.New(problem))
		name, entry, _ := strings.Cut(entry, "/")
		o := k.o.View.configMaps.Get(k.o.Namespace, name)
		if k.told[path] == problem || o == nil || !k.lease.held() {
			continue
		}
		if err := k.o.View.Tell(ctx, invalid(o, entry+": "+problem, k.o.Identity, k.o.Now())); err != nil {
			failed = append(failed, err)
			continue
		}
		k.told[path] = problem
	}
	for path := range k.told {
		if _, there := all[path]; !there {
			delete(k.told, path)
		}
	}
	return errors.Join(failed...)
}

// eventMax bounds the message of an Event, in bytes: the API server takes 1,024.
const eventMax = 1_000

// invalid is an Event that tells what is wrong with an object. Its name is made of what it
// says of which state of the object, so that several who tell it are one.
func invalid(o *kube.Object, problem, identity string, now time.Time) map[string]any {
	sum := gatehouse.DigestOf(fmt.Appendf(nil, "%s %s %s", o.GetUID(), o.GetResourceVersion(), problem)).Hex()[:16]
	at := now.UTC().Format(time.RFC3339)
	about := map[string]any{
		"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "namespace": o.GetNamespace(), "name": o.GetName(), "uid": string(o.GetUID()),
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata":       map[string]any{"namespace": o.GetNamespace(), "name": strings.Trim(clipName(o.GetName()), ".-") + "." + sum},
		"involvedObject": about, "type": "Warning", "reason": reasonInvalid, "message": clip(problem, eventMax),
		"firstTimestamp": at, "lastTimestamp": at, "count": int64(1), "action": "Load",
		"source": map[string]any{"component": managedByUs}, "reportingComponent": managedByUs, "reportingInstance": clip(identity, 100),
	}
}

// clipName shortens a name so that more fits behind it.
func clipName(name string) string { return name[:min(len(name), 200)] }

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
