package admit

import (
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of what people read. The API server cuts warnings at 4096 bytes in
// total, kubectl shows messages whole.
const (
	messageMax  = 6_000 // bytes
	warningMax  = 400   // bytes each
	warningsMax = 10
)

// respond puts a decision into a response. Only Allow and Warn let through;
// any other verdict denies.
func respond(uid string, d gatehouse.Decision) *reviewResponse {
	r := &reviewResponse{
		UID:     uid,
		Allowed: d.Verdict == gatehouse.Allow || d.Verdict == gatehouse.Warn,
		AuditAnnotations: map[string]string{
			"verdict": d.Verdict.String(),
		},
	}
	if d.ID != "" {
		r.AuditAnnotations["decision"] = d.ID
	}
	var denials []string
	for _, reason := range d.Reasons {
		switch reason.Verdict {
		case gatehouse.Deny:
			denials = append(denials, line(reason, true))
		case gatehouse.Warn:
			if len(r.Warnings) < warningsMax {
				r.Warnings = append(r.Warnings, clip(line(reason, false), warningMax))
			}
		}
	}
	if r.Allowed {
		return r
	}
	if len(denials) == 0 {
		denials = []string{"denied, and no reason was given"}
	}
	if d.ID != "" {
		denials = append(denials, "decision "+d.ID)
	}
	r.Status = &status{
		Status: "Failure", Code: http.StatusForbidden, Reason: "Forbidden",
		Message: clip(strings.Join(denials, "\n"), messageMax),
	}
	if d.ID != "" && len(r.Status.Message) > messageMax {
		r.Status.Message += "\ndecision " + d.ID
	}
	return r
}

// line says which policy, which image, why, and what would help; what it has in common
// with policy-controller's words, in its order.
func line(r gatehouse.Reason, hint bool) string {
	var b strings.Builder
	switch {
	case r.Policy != "" && r.Image != "" && r.Field != "":
		fmt.Fprintf(&b, "failed policy: %s: %s: image %s: ", r.Policy, r.Field, r.Image)
	case r.Image != "" && r.Field != "":
		// The message goes first: "no matching policies: spec.containers[0].image".
		fmt.Fprintf(&b, "%s: %s: image %s [%s]", r.Message, r.Field, r.Image, r.Code)
		return printable(b.String() + hinted(r, hint))
	case r.Policy != "":
		fmt.Fprintf(&b, "failed policy: %s: ", r.Policy)
	}
	if r.Image != "" && r.Field == "" {
		fmt.Fprintf(&b, "image %s: ", r.Image)
	}
	fmt.Fprintf(&b, "%s [%s]", r.Message, r.Code)
	return printable(b.String() + hinted(r, hint))
}

// hinted is the hint of a reason, behind it.
func hinted(r gatehouse.Reason, hint bool) string {
	if !hint || r.Hint == "" {
		return ""
	}
	return "; hint: " + r.Hint
}

// printable keeps control characters of foreign text off terminals and out of
// the HTTP headers that warnings become, and what makes text look like another
// (directions, characters of no width).
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
}
