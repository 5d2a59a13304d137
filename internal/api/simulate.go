package api

import (
	"net/http"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of one simulation.
const (
	SimulationSizeMax = 8 << 20 // bytes of a body
	documentsMax      = 200
	withoutMax        = 200
	simulatedAgeMax   = 366 * 24 * time.Hour
)

// Simulation says what reviews are judged by, and from when on.
type Simulation struct {
	Since     time.Time
	Documents []PolicyDocument // take the place of those in force of the same kind and name
	Without   []string         // policies that are taken away, by name
}

// PolicyDocument is a file of policies.
type PolicyDocument struct {
	Name   string `json:"name"` // its extension tells the language
	Source string `json:"source"`
}

func (h handler) policySimulate(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	body, err := readAll(w, r, SimulationSizeMax)
	if err != nil {
		return err
	}
	var in struct {
		Since     string           `json:"since"`
		Documents []PolicyDocument `json:"documents"`
		Without   []string         `json:"without"`
	}
	if err := strictJSON(body, &in); err != nil {
		return err
	}
	ask := Simulation{Documents: in.Documents, Without: in.Without}
	if ask.Since, err = sinceOf(in.Since, time.Now()); err != nil {
		return err
	}
	switch {
	case len(in.Documents)+len(in.Without) == 0:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "there is nothing to compare with").WithHint("give documents, or name policies to go without")
	case len(in.Documents) > documentsMax || len(in.Without) > withoutMax:
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "%d documents and %d policies, %d and %d at most", len(in.Documents), len(in.Without), documentsMax, withoutMax)
	}
	for _, d := range in.Documents {
		if d.Name == "" || len(d.Name) > 1000 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "a document has no name").WithHint("give it a file's name: the extension tells the language")
		}
	}
	v, err := h.Policies.Simulate(r.Context(), ask)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

// sinceOf reads a time, or how long ago it was ("168h"); empty is a week ago.
func sinceOf(s string, now time.Time) (time.Time, error) {
	const week = 7 * 24 * time.Hour
	if s == "" {
		return now.Add(-week).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > simulatedAgeMax {
		return time.Time{}, gatehouse.Errorf(gatehouse.CodeInvalid, "since %.50q is neither a time nor how long ago it was", s).
			WithHint("write 168h or 2026-11-21T00:00:00Z")
	}
	return now.Add(-d).UTC(), nil
}
