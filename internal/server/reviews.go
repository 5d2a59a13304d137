package server

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// Limits of the reviews that are kept for gatehouse policy simulate.
const (
	reviewsMax     = 50_000
	reviewBytesMax = 256 << 20 // in the database
	reviewWaitMax  = 16 << 20  // bytes that wait to be written
	// So many reviews are read before others have the processor: reviews that are being
	// answered do not wait for those that are.
	reviewsAtOnce = 8
	reviewsPause  = 2 * time.Millisecond
)

// reviews keeps what was reviewed, so that other policies can judge it. Reviews that
// no policy could tell apart are kept once and counted: a Deployment of a hundred
// replicas is one.
type reviews struct {
	db  *db.DB
	age time.Duration // 0: nothing is kept
	log *slog.Logger

	flushing sync.Mutex  // one at a time: whoever has flushed finds everything
	same     sameReviews // guarded by flushing

	mu      sync.Mutex
	waiting []reviewed // guarded by mu
	bytes   int        // of them; guarded by mu
	dropped int        // guarded by mu
}

// reviewed is a review that waits to be written.
type reviewed struct {
	req      gatehouse.Request // its Images have their digests
	decision string
	verdict  gatehouse.Verdict
}

// reviewDoc is a review as it is kept.
type reviewDoc struct {
	// Request has everything but the objects, the facts, and what is different each
	// time.
	Request   gatehouse.Request `json:"request"`
	Object    map[string]any    `json:"object,omitempty"`
	OldObject map[string]any    `json:"oldObject,omitempty"`
	// Digests is what the references meant, as they were written.
	Digests map[string]gatehouse.Digest `json:"digests,omitempty"`
}

// reviewRestMax bounds what a review has beside its objects, in bytes.
const reviewRestMax = 256 << 10

// add takes a review that was decided. It never waits.
func (r *reviews) add(req gatehouse.Request, d gatehouse.Decision) {
	if r.age <= 0 || len(req.Object) == 0 || secretive(req.Kind) {
		return
	}
	size := len(req.Object) + len(req.OldObject) + 1000
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes+size > reviewWaitMax {
		r.dropped++
		return
	}
	r.bytes += size
	r.waiting = append(r.waiting, reviewed{req, d.ID, d.Verdict})
}

// flush writes what waits. What cannot be written is lost: it is a sample of what
// happens, not a record of it.
func (r *reviews) flush(ctx context.Context) {
	r.flushing.Lock()
	defer r.flushing.Unlock()
	r.mu.Lock()
	batch, dropped := r.waiting, r.dropped
	r.waiting, r.bytes, r.dropped = nil, 0, 0
	r.mu.Unlock()
	if dropped > 0 {
		r.log.WarnContext(ctx, "reviews not kept", "count", dropped)
	}
	if len(batch) == 0 {
		return
	}
	rows := map[gatehouse.Digest]*db.Review{}
	firsts := map[gatehouse.Digest]reviewed{}
	docs := map[gatehouse.Digest]reviewDoc{} // those that were read
	for i, one := range batch {
		if i%reviewsAtOnce == reviewsAtOnce-1 {
			time.Sleep(reviewsPause)
		}
		key, keyed := r.same.keyOf(one)
		digest, seen := r.same.digest(key)
		if !keyed || !seen {
			doc, read, err := docOfReview(one)
			if err != nil {
				continue // no JSON, which no policy has judged either, or too much
			}
			if digest, docs[read] = read, doc; keyed {
				r.same.put(key, digest)
			}
		}
		row := rows[digest]
		if row == nil {
			row = &db.Review{Digest: digest, First: one.req.Now}
			rows[digest], firsts[digest] = row, one
		}
		row.Times++
		row.Last, row.Decision, row.Verdict = one.req.Now, one.decision, one.verdict
	}
	order := slices.Sorted(maps.Keys(rows)) // replicas take rows in one order
	err := r.db.Note(ctx, func(tx *db.Tx) error {
		for _, digest := range order {
			known, err := tx.NoteReview(ctx, *rows[digest])
			if err != nil || known {
				if err != nil {
					return err
				}
				continue
			}
			doc, read := docs[digest]
			if !read { // and forgotten by the database since
				if doc, _, err = docOfReview(firsts[digest]); err != nil {
					continue // what is not compared was too much
				}
			}
			row := *rows[digest]
			if row.Doc, err = json.Marshal(doc); err != nil {
				return err
			}
			if err := tx.SaveReview(ctx, row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.log.ErrorContext(ctx, "write reviews failed", "error", err)
	}
}

// prune drops what nobody replays any more.
func (r *reviews) prune(ctx context.Context, now time.Time) error {
	return r.db.Write(ctx, func(tx *db.Tx) error { return tx.PruneReviews(ctx, now.Add(-r.age), reviewsMax, reviewBytesMax) })
}

// docOfReview makes what is kept of a review, and the digest of what policies could
// tell it by.
func docOfReview(one reviewed) (doc reviewDoc, digest gatehouse.Digest, err error) {
	req := one.req
	doc.Request = req
	doc.Request.UID, doc.Request.Images, doc.Request.Object, doc.Request.OldObject = "", nil, nil, nil
	doc.Request.Now, doc.Request.FeedAt, doc.Request.Inventory = time.Time{}, time.Time{}, nil
	rest, err := restOfReview(req.Review)
	if err != nil {
		return doc, "", err
	}
	if doc.Request.Review, err = rest.json(); err != nil {
		return doc, "", err
	}
	if doc.Object, err = objectOf(req.Object); err != nil {
		return doc, "", err
	}
	if doc.OldObject, err = objectOf(req.OldObject); err != nil {
		return doc, "", err
	}
	// What an object calls itself counts as well as what the request calls it.
	if secretive(workload.Kind(doc.Object)) || secretive(workload.Kind(doc.OldObject)) {
		return doc, "", gatehouse.Errorf(gatehouse.CodeDenied, "objects of the kind are not kept")
	}
	for _, f := range req.Images {
		if f.Image.Digest != "" {
			if doc.Digests == nil {
				doc.Digests = map[string]gatehouse.Digest{}
			}
			doc.Digests[f.Written] = f.Image.Digest
		}
	}
	told := doc
	told.Request.User.UID, told.Request.User.Extra = "", nil // both may be another with each login
	var generated bool
	told.Object, generated = workload.General(doc.Object)
	told.OldObject, _ = workload.General(doc.OldObject)
	delete(rest, "userInfo") // which told.Request.User has
	if generated {
		told.Request.Name = ""
		delete(rest, "name")
	}
	if told.Request.Review, err = rest.json(); err != nil {
		return doc, "", err
	}
	b, err := json.Marshal(struct {
		reviewDoc
		Verdict gatehouse.Verdict `json:"verdict"`
	}{told, one.verdict})
	if err == nil && len(b) > reviewRestMax { // a part of it may be
		if part, err := json.Marshal(told.Request); err != nil || len(part) > reviewRestMax {
			return doc, "", gatehouse.Errorf(gatehouse.CodeTooLarge, "the review has more than %d bytes beside its objects", reviewRestMax)
		}
	}
	return doc, gatehouse.DigestOf(b), err
}

// secretive reports whether objects of a kind hold secrets, and nothing that would be
// judged again.
func secretive(k gatehouse.ObjectKind) bool {
	return k.Group == "" && k.Kind == "Secret" || k.Group == "authentication.k8s.io" // TokenReview, TokenRequest
}

// keptOfReview are the fields of an AdmissionRequest that are kept, in order. The
// objects are kept beside them, without what nobody needs of them; what else there may
// be is not.
var keptOfReview = []string{
	"dryRun", "kind", "name", "namespace", "operation", "options", "requestKind", "requestResource", "requestSubResource", "resource", "subResource", "userInfo",
}

// reviewRest is the request of an AdmissionReview without its objects, by field; nil:
// none is known.
type reviewRest map[string]json.RawMessage

func restOfReview(review []byte) (rest reviewRest, err error) {
	if len(review) == 0 {
		return nil, nil
	}
	all, err := admit.Fields(review)
	if err != nil {
		return nil, err
	}
	rest = reviewRest{}
	for _, name := range keptOfReview {
		if value, ok := all[name]; ok {
			rest[name] = value
		}
	}
	return rest, nil
}

// json has the fields in order.
func (r reviewRest) json() ([]byte, error) {
	if r == nil {
		return nil, nil
	}
	b := bytes.NewBufferString("{")
	for _, name := range keptOfReview {
		value, ok := r[name]
		if !ok {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + name + `":`)
		if err := json.Compact(b, value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// objectOf reads an object without what only says who wrote it when, and without values
// of environment variables that are secret by their names.
func objectOf(b []byte) (map[string]any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	obj, err := workload.Decode(b)
	if err != nil {
		return nil, err
	}
	delete(obj, "status")
	masked(obj)
	if meta, ok := obj["metadata"].(map[string]any); ok {
		delete(meta, "managedFields")
	}
	return obj, nil
}

// request is the review again, at another time.
func (doc reviewDoc) request(now time.Time) (req gatehouse.Request, err error) {
	req = doc.Request
	req.UID, req.Now = "simulated", now
	if doc.Object != nil {
		if req.Object, err = json.Marshal(doc.Object); err != nil {
			return req, err
		}
	}
	if doc.OldObject != nil {
		req.OldObject, err = json.Marshal(doc.OldObject)
	}
	return req, err
}
