package server

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/running"
)

// runningAnswer is the answer of GET /api/v1/running.
type runningAnswer struct {
	// Watched: there is a cluster, and what runs in it is judged.
	Watched bool          `json:"watched"`
	Running []runningShow `json:"running"`
	// Next is what to ask after for more; 0: this is the end.
	Next int64 `json:"next,omitempty"`
}

// runningShow is what was decided of the Pods of one template that one workload owns.
type runningShow struct {
	Namespace  string            `json:"namespace"`
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Name       string            `json:"name"`
	Pods       int               `json:"pods"`
	Images     []running.Image   `json:"images"`
	Verdict    gatehouse.Verdict `json:"verdict"`
	// Unknown: something could not be found out, and nothing is known from before.
	Unknown bool `json:"unknown,omitempty"`
	// Since is when the verdict became this one, for these reasons.
	Since   time.Time          `json:"since"`
	Reasons []gatehouse.Reason `json:"reasons"`
	// Decision explains it: gatehouse explain ID.
	Decision string `json:"decision"`
}

// runningAPI is what the API sees of what runs.
type runningAPI struct{ *Server }

// Running implements api.Running. Any replica answers.
func (s runningAPI) Running(ctx context.Context, ask api.RunningQuestion) (any, error) {
	out := runningAnswer{Watched: s.cfg.Kubeconfig != "" && s.cfg.RunningAudit, Running: []runningShow{}}
	var list []db.Running
	err := s.db.Get(ctx, func(tx *db.Tx) (err error) {
		list, err = tx.Running(ctx, db.RunningFilter{Namespace: ask.Namespace, Digest: ask.Digest, Verdict: ask.Verdict, After: ask.After}, ask.Max)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		row, err := rowOf(r)
		if err != nil {
			return nil, err
		}
		st := row.standing
		out.Running = append(out.Running, runningShow{
			r.Namespace, st.Workload.APIVersion, r.Kind, r.Name, r.Pods, st.Images, r.Verdict, st.Unknown, r.Since, st.Reasons, st.Decision,
		})
	}
	if len(list) == ask.Max {
		out.Next = list[len(list)-1].ID
	}
	return out, nil
}

// mayHear reports whether an event of what runs may be shown to one who may read some
// repositories: only if all of its images of this registry lie in such.
func (s *Server) mayHear(e gatehouse.Event, may func(gatehouse.Repo) bool) bool {
	var p runningPayload
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return false
	}
	for _, i := range p.Images {
		ref, err := gatehouse.ParseRef(i.Name)
		if err != nil || s.facts.isOwn(ref.Registry) && !may(ref.Repo) {
			return false
		}
	}
	return true
}
