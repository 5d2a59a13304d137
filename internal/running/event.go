package running

import (
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Reasons of the Events that are written into the cluster.
const (
	EventDenied  = "ImageDenied"  // it runs, and would not be admitted now
	EventWarned  = "ImageWarned"  // it would be admitted, with warnings
	EventAllowed = "ImageAllowed" // it would be admitted again
)

// eventMessageMax is what the Kubernetes API takes, less an ellipsis.
const eventMessageMax = 1000

// Event is an Event (v1) about the workload of s. Its name is made of what it says, so
// that one that is there need not be written again.
func Event(s Standing, instance string) map[string]any {
	kind, reason := "Warning", EventDenied
	switch s.Verdict {
	case gatehouse.Allow:
		kind, reason = "Normal", EventAllowed
	case gatehouse.Warn:
		reason = EventWarned
	}
	sum := gatehouse.DigestOf(fmt.Appendf(nil, "%s %s %d\n%s", s.Workload.UID, s.Workload.Kind, s.Since.UnixMicro(), s.Key())).Hex()[:16]
	name := s.Workload.Name
	if len(name) > 200 {
		name = strings.Trim(name[:200], ".-")
	}
	at := s.Since.UTC().Format(time.RFC3339)
	about := map[string]any{
		"apiVersion": s.Workload.APIVersion, "kind": s.Workload.Kind, "namespace": s.Workload.Namespace, "name": s.Workload.Name,
	}
	if s.Workload.UID != "" {
		about["uid"] = s.Workload.UID
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata":       map[string]any{"namespace": s.Workload.Namespace, "name": name + "." + sum},
		"involvedObject": about, "type": kind, "reason": reason, "message": Message(s),
		"firstTimestamp": at, "lastTimestamp": at, "count": int64(1),
		"source": map[string]any{"component": Source}, "reportingComponent": Source, "reportingInstance": clip(instance, 100),
	}
}

// Message says in a sentence or a few what came out.
func Message(s Standing) string {
	tell := fmt.Sprintf("; gatehouse explain %s", s.Decision)
	var said []string
	for _, r := range s.Reasons {
		if s.Verdict == gatehouse.Deny && r.Verdict != gatehouse.Deny {
			continue
		}
		text := r.Code + ": " + r.Message
		if r.Policy != "" {
			text = r.Policy + ": " + text
		}
		if r.Image != "" {
			text = r.Image + ": " + text
		}
		said = append(said, text)
	}
	switch {
	case s.Verdict == gatehouse.Allow:
		return "what runs would be admitted again" + tell
	case s.Unknown:
		return clip("whether what runs would be admitted cannot be found out: "+strings.Join(said, "; "), eventMessageMax-len(tell)) + tell
	case s.Verdict == gatehouse.Warn:
		return clip("what runs would be admitted with warnings: "+strings.Join(said, "; "), eventMessageMax-len(tell)) + tell
	}
	return clip("what runs would not be admitted now: "+strings.Join(said, "; "), eventMessageMax-len(tell)) + tell
}
