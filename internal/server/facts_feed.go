package server

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	signed "github.com/gatehouse-dev/gatehouse/internal/facts"
)

// keyFacts is the server's key for what it tells other clusters.
const keyFacts = "facts"

// factsFeed tells other clusters, signed, what is known of images here. It implements
// api.Facts.
type factsFeed struct{ *Server }

// FactsKey implements api.Facts.
func (f factsFeed) FactsKey(ctx context.Context) ([]byte, error) { return f.keys.Public(ctx, keyFacts) }

// Changes implements api.Facts. Positions are those of events.
func (f factsFeed) Changes(ctx context.Context, after int64, mark, nonce string, may func(gatehouse.Repo) bool) (json.RawMessage, error) {
	page := signed.Page{Nonce: nonce, After: after, Changes: []signed.Change{}}
	var err error
	if page.Server, err = f.installation(ctx); err != nil {
		return nil, err
	}
	var events []gatehouse.Event
	err = f.db.Read(ctx, func(tx *db.Tx) (err error) {
		g, _, err := tx.CurrentGeneration(ctx)
		if err != nil {
			return err
		}
		page.Generation = g.ID
		var last gatehouse.Event
		if after < 0 {
			last, err = tx.LastEvent(ctx)
			page.After = last.Seq
		} else {
			last, err = f.eventAt(ctx, tx, after, mark)
		}
		if err != nil {
			return err
		}
		page.Last, page.Mark = last.Seq, markOf(last)
		if after < 0 {
			return nil
		}
		if events, err = tx.Events(ctx, after, signed.ChangesMax); err == nil && len(events) > 0 {
			last = events[len(events)-1]
			page.Last, page.Mark, page.More = last.Seq, markOf(last), len(events) == signed.ChangesMax
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	// The time comes after what was read: of facts that are younger nothing is missing.
	if page.At, err = f.time(ctx); err != nil {
		return nil, err
	}
	page.ExpiresAt = page.At.Add(signed.Lifetime)
	page.Names = f.namesElsewhere()
	page.All, page.Changes = changesOf(events, may)
	return f.sign(ctx, signed.TypePage, page)
}

// eventAt finds the event that a page ended with. Where it is another one now, the
// database is not that of then.
func (f factsFeed) eventAt(ctx context.Context, tx *db.Tx, seq int64, mark string) (gatehouse.Event, error) {
	if seq == 0 {
		return gatehouse.Event{}, nil
	}
	e, err := tx.Event(ctx, seq)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound || err == nil && markOf(e) != mark {
		return e, gatehouse.Errorf(gatehouse.CodeConflict, "position %d of the feed is not one of this server's history", seq).
			WithHint("was the server restored from a backup? begin anew, without what was kept")
	}
	return e, err
}

// markOf tells an event from one that has its position in another history.
func markOf(e gatehouse.Event) string {
	if e.Seq == 0 {
		return ""
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // texts, numbers and a time
	}
	return gatehouse.DigestOf(b).Short()
}

// changesOf is what events mean for facts. What is not known to mean nothing may have
// changed everything.
func changesOf(events []gatehouse.Event, may func(gatehouse.Repo) bool) (all bool, changes []signed.Change) {
	changes = []signed.Change{}
	seen := map[signed.Change]bool{}
	for _, e := range events {
		switch e.Type {
		case gatehouse.EventPolicyChanged, gatehouse.EventDecisionDenied, gatehouse.EventBreakGlass, gatehouse.EventSigstoreRotated, gatehouse.EventProjectChanged:
			continue // policies are each cluster's own
		}
		if e.Repo == "" || e.Type == gatehouse.EventExceptionChanged {
			all = true
			continue
		}
		c := signed.Change{Repository: e.Repo, Digest: e.Digest}
		if seen[c] || !may(e.Repo) {
			continue
		}
		seen[c] = true
		changes = append(changes, c)
	}
	return all, changes
}

// namesElsewhere are the names of this server that mean it in other clusters, too:
// what is on loopback there is something else. Where it has no other name, as on a
// machine where it is tried out, there are those.
func (f factsFeed) namesElsewhere() []string {
	names := f.cfg.Hostnames
	if len(names) == 0 {
		names = f.facts.hosts.names
	}
	return lowered(names)
}

// Image implements api.Facts.
func (f factsFeed) Image(ctx context.Context, repo gatehouse.Repo, digest, known gatehouse.Digest, nonce string) (json.RawMessage, error) {
	doc := signed.Document{Nonce: nonce, Repository: repo, Digest: digest}
	var err error
	if doc.Server, err = f.installation(ctx); err != nil {
		return nil, err
	}
	// The time comes before anything is read: what changes meanwhile is younger.
	if doc.At, err = f.time(ctx); err != nil {
		return nil, err
	}
	doc.ExpiresAt = doc.At.Add(signed.Lifetime)
	err = f.db.Get(ctx, func(tx *db.Tx) error {
		g, _, err := tx.CurrentGeneration(ctx)
		doc.Generation = g.ID
		return err
	})
	if err != nil {
		return nil, err
	}
	if doc.Image, err = f.facts.told(ctx, repo, digest); err != nil {
		return nil, err
	}
	if doc.Version, err = signed.VersionOf(doc.Image); err != nil {
		return nil, err
	}
	if doc.Unchanged = doc.Version == known; doc.Unchanged {
		doc.Image = nil
	}
	return f.sign(ctx, signed.TypeImage, doc)
}

func (f factsFeed) installation(ctx context.Context) (string, error) {
	if id := f.installed.Load(); id != nil {
		return *id, nil
	}
	id, err := f.db.Installation(ctx)
	if err == nil {
		f.installed.Store(&id)
	}
	return id, err
}

// time is that of the database, which all replicas share.
func (f factsFeed) time(ctx context.Context) (at time.Time, err error) {
	err = f.db.Get(ctx, func(tx *db.Tx) error {
		at = tx.Now()
		return nil
	})
	return at, err
}

func (f factsFeed) sign(ctx context.Context, payloadType string, v any) (json.RawMessage, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	key, err := f.keys.key(ctx, keyFacts)
	if err != nil {
		return nil, err
	}
	return key.Key().Envelope(ctx, payloadType, payload)
}
