package api

import (
	"context"
	"net/http"

	"github.com/gatehouse-dev/gatehouse"
)

// Running tells what runs in the cluster.
type Running interface {
	// Running lists what was decided of it.
	Running(ctx context.Context, ask RunningQuestion) (any, error)
}

// RunningQuestion says what is wanted; zero fields: anything.
type RunningQuestion struct {
	Namespace string
	Digest    gatehouse.Digest
	Verdict   *gatehouse.Verdict
	After     int64
	Max       int
}

// namespaceMax bounds the name of a namespace, in bytes.
const namespaceMax = 63

func (h handler) running(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) (err error) {
	if err := admin(actor); err != nil {
		return err
	}
	var ask RunningQuestion
	if ask.Max, err = pageSize(r); err != nil {
		return err
	}
	if ask.After, err = number(r, "after"); err != nil {
		return err
	}
	q := r.URL.Query()
	if ask.Namespace = q.Get("namespace"); len(ask.Namespace) > namespaceMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "namespace has %d bytes, %d at most", len(ask.Namespace), namespaceMax)
	}
	if s := q.Get("digest"); s != "" {
		if ask.Digest, err = gatehouse.ParseDigest(s); err != nil {
			return err
		}
	}
	if s := q.Get("verdict"); s != "" {
		var v gatehouse.Verdict
		if err := v.UnmarshalJSON([]byte(`"` + s + `"`)); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "verdict %.50q is unknown", s).WithHint("write allow, warn or deny")
		}
		ask.Verdict = &v
	}
	v, err := h.Running.Running(r.Context(), ask)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}
