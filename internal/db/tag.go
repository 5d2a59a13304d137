package db

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// TagTarget names the manifest that a tag is to point at.
type TagTarget struct {
	Repo       gatehouse.Repo
	RepoID     int64
	ManifestID int64
	Digest     gatehouse.Digest
}

// TagChange is the payload of the events tag.moved and tag.deleted, and one line
// of a tag's history. Old is empty where the tag was created, New where it was
// deleted.
type TagChange struct {
	Name  string           `json:"-"`
	Old   gatehouse.Digest `json:"old,omitempty"`
	New   gatehouse.Digest `json:"new,omitempty"`
	Actor string           `json:"-"`
	At    time.Time        `json:"-"`
}

// MoveTag points a tag at a manifest and writes history, event and audit
// record. A tag that points there already is left alone: moved is false.
func (t *Tx) MoveTag(ctx context.Context, actor gatehouse.Actor, to TagTarget, name string) (moved bool, err error) {
	for range racesMax {
		old, ok, err := t.tagged(ctx, to.RepoID, name)
		if err != nil || ok && old == to.Digest {
			return false, err
		}
		// The row is ours, or nobody's until it is added: whoever adds it at the
		// same moment must be in the history before us.
		change := `INSERT INTO tag (repo_id, name, manifest_id, updated_by, updated_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (repo_id, name) DO NOTHING`
		if ok {
			change = `UPDATE tag SET manifest_id = $3, updated_by = $4, updated_at = $5 WHERE repo_id = $1 AND name = $2`
		}
		n, err := affected(t.tx.ExecContext(ctx, change, to.RepoID, name, to.ManifestID, actor.Name, micros(t.now)))
		if err != nil {
			return false, err
		}
		if n > 0 {
			return true, t.tagChanged(ctx, actor, to.Repo, to.RepoID, TagChange{Name: name, Old: old, New: to.Digest})
		}
	}
	return false, raced("a tag of", to.Digest)
}

// DeleteTag removes a tag and writes history, event and audit record.
// CodeNotFound with detail MANIFEST_UNKNOWN: there is no such tag.
func (t *Tx) DeleteTag(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, name string) error {
	id, ok, err := t.repoID(ctx, repo)
	if err != nil {
		return err
	}
	var old gatehouse.Digest
	if ok {
		old, ok, err = t.tagged(ctx, id, name)
		if err != nil {
			return err
		}
	}
	if !ok {
		return notFound("MANIFEST_UNKNOWN", "repository %s has no tag %s", repo, name)
	}
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM tag WHERE repo_id = $1 AND name = $2`, id, name); err != nil {
		return unavailable(err)
	}
	return t.tagChanged(ctx, actor, repo, id, TagChange{Name: name, Old: old})
}

// tagChanged writes the traces of a change, with the digests before and after.
func (t *Tx) tagChanged(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, repoID int64, c TagChange) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO tag_history (repo_id, name, old_digest, new_digest, actor, at) VALUES ($1, $2, $3, $4, $5, $6)`,
		repoID, c.Name, dbDigest(c.Old), dbDigest(c.New), actor.Name, micros(t.now))
	if err != nil {
		return unavailable(err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return err
	}
	e := gatehouse.Event{Type: gatehouse.EventTagMoved, Actor: actor.Name, Repo: repo, Tag: c.Name, Digest: c.New, Payload: payload}
	action := "tag.move"
	if c.New == "" {
		e.Type, e.Digest, action = gatehouse.EventTagDeleted, c.Old, "tag.delete"
	}
	if err := t.AddEvent(ctx, e); err != nil {
		return err
	}
	return t.AddAudit(ctx, actor, action, string(repo)+":"+c.Name, string(payload))
}

// tagged returns what a tag points at, and owns its row. Two statements: a join
// would be of the moment before the lock was waited for.
func (t *Tx) tagged(ctx context.Context, repoID int64, name string) (d gatehouse.Digest, ok bool, err error) {
	var manifest int64
	err = t.tx.QueryRowContext(ctx, `SELECT manifest_id FROM tag WHERE repo_id = $1 AND name = $2`+t.dialect.own, repoID, name).Scan(&manifest)
	if none(err) {
		return "", false, nil
	}
	if err == nil {
		err = t.tx.QueryRowContext(ctx, `SELECT digest FROM manifest WHERE id = $1`, manifest).Scan((*dbDigest)(&d))
	}
	if err != nil {
		return "", false, unavailable(err)
	}
	return d, true, nil
}

// Tags lists a repository's tags in byte order after the given one, at most n.
func (t *Tx) Tags(ctx context.Context, repo gatehouse.Repo, after string, n int) ([]string, error) {
	if n <= 0 {
		return nil, nil
	}
	return t.strings(ctx, `SELECT t.name FROM repository r JOIN tag t ON t.repo_id = r.id
		WHERE r.path = $1 AND t.name > $2 ORDER BY t.name LIMIT $3`, string(repo), after, n)
}

// TagsOf lists the tags that point at a manifest, in byte order. Until a
// transaction that writes ends, nobody moves them.
func (t *Tx) TagsOf(ctx context.Context, manifestID int64) ([]string, error) {
	return t.strings(ctx, `SELECT name FROM tag WHERE manifest_id = $1 ORDER BY name`+t.dialect.own, manifestID)
}

// TagHistory lists what happened to a tag, newest first, at most n changes.
func (t *Tx) TagHistory(ctx context.Context, repo gatehouse.Repo, name string, n int) ([]TagChange, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT h.old_digest, h.new_digest, h.actor, h.at FROM repository r JOIN tag_history h ON h.repo_id = r.id
		WHERE r.path = $1 AND h.name = $2 ORDER BY h.id DESC LIMIT $3`, string(repo), name, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []TagChange
	for rows.Next() {
		c := TagChange{Name: name}
		var at int64
		if err := rows.Scan((*dbDigest)(&c.Old), (*dbDigest)(&c.New), &c.Actor, &at); err != nil {
			return nil, unavailable(err)
		}
		c.At = fromMicros(at)
		out = append(out, c)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// strings runs a query of one text column.
func (t *Tx) strings(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}
