package db

import (
	"context"
	"encoding/json"
	"math"
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

// TagChange is the payload of the events tag.moved, tag.restored and tag.deleted, and one line
// of a tag's history. Old is empty where the tag was created, New where it was
// deleted.
type TagChange struct {
	ID    int64            `json:"-"` // position in the history
	Name  string           `json:"-"`
	Old   gatehouse.Digest `json:"old,omitempty"`
	New   gatehouse.Digest `json:"new,omitempty"`
	Actor string           `json:"-"`
	At    time.Time        `json:"-"`
}

// MoveTag points a tag at a manifest and writes history, event and audit
// record. A tag that points there already is left alone: moved is false. The
// manifest that it leaves is kept that long, so that the tag can be restored.
// CodeConflict with detail TAG_IMMUTABLE: see [Tx.MayMoveTag].
func (t *Tx) MoveTag(ctx context.Context, actor gatehouse.Actor, to TagTarget, name string, keep time.Duration) (moved bool, err error) {
	_, moved, err = t.MoveTagFrom(ctx, actor, to, name, keep)
	return moved, err
}

// MoveTagFrom is [Tx.MoveTag] that also tells what the tag pointed at before, empty
// where there was no such tag: nobody moves it between the two.
func (t *Tx) MoveTagFrom(ctx context.Context, actor gatehouse.Actor, to TagTarget, name string, keep time.Duration) (old gatehouse.Digest, moved bool, err error) {
	return t.moveTag(ctx, actor, to, name, keep, gatehouse.EventTagMoved, "tag.move")
}

// RestoreTag is [Tx.MoveTag] for a tag that gets back what it had.
func (t *Tx) RestoreTag(ctx context.Context, actor gatehouse.Actor, to TagTarget, name string, keep time.Duration) (moved bool, err error) {
	_, moved, err = t.moveTag(ctx, actor, to, name, keep, gatehouse.EventTagRestored, "tag.restore")
	return moved, err
}

func (t *Tx) moveTag(ctx context.Context, actor gatehouse.Actor, to TagTarget, name string, keep time.Duration, event gatehouse.EventType, action string) (old gatehouse.Digest, moved bool, err error) {
	for range racesMax {
		left, old, ok, err := t.tagged(ctx, to.RepoID, name)
		if err != nil || ok && old == to.Digest {
			return old, false, err
		}
		if ok {
			if err := t.MayMoveTag(ctx, to.Repo, name); err != nil {
				return "", false, err
			}
		}
		// The row is ours, or nobody's until it is added: whoever adds it at the
		// same moment must be in the history before us.
		change := `INSERT INTO tag (repo_id, name, manifest_id, updated_by, updated_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (repo_id, name) DO NOTHING`
		if ok {
			change = `UPDATE tag SET manifest_id = $3, updated_by = $4, updated_at = $5 WHERE repo_id = $1 AND name = $2`
		}
		n, err := affected(t.tx.ExecContext(ctx, change, to.RepoID, name, to.ManifestID, actor.Name, micros(t.now)))
		if err != nil {
			return "", false, err
		}
		if n == 0 {
			continue
		}
		if ok {
			if err := t.ReviewManifest(ctx, left, "tag moved", t.now.Add(keep)); err != nil {
				return "", false, err
			}
		}
		return old, true, t.tagChanged(ctx, actor, to.Repo, to.RepoID, TagChange{Name: name, Old: old, New: to.Digest}, event, action)
	}
	return "", false, raced("a tag of", to.Digest)
}

// DeleteTag removes a tag and writes history, event and audit record. Its
// manifest is kept that long, so that the tag can be restored.
// CodeNotFound with detail MANIFEST_UNKNOWN: there is no such tag. CodeConflict with
// detail TAG_IMMUTABLE: see [Tx.MayMoveTag].
func (t *Tx) DeleteTag(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, name string, keep time.Duration) error {
	id, ok, err := t.repoID(ctx, repo)
	if err != nil {
		return err
	}
	var left int64
	var old gatehouse.Digest
	if ok {
		left, old, ok, err = t.tagged(ctx, id, name)
		if err != nil {
			return err
		}
	}
	if !ok {
		return notFound("MANIFEST_UNKNOWN", "repository %s has no tag %s", repo, name)
	}
	if err := t.MayMoveTag(ctx, repo, name); err != nil {
		return err
	}
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM tag WHERE repo_id = $1 AND name = $2`, id, name); err != nil {
		return unavailable(err)
	}
	if err := t.ReviewManifest(ctx, left, "tag deleted", t.now.Add(keep)); err != nil {
		return err
	}
	return t.tagChanged(ctx, actor, repo, id, TagChange{Name: name, Old: old}, gatehouse.EventTagDeleted, "tag.delete")
}

// tagChanged writes the traces of a change, with the digests before and after.
func (t *Tx) tagChanged(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, repoID int64, c TagChange, event gatehouse.EventType, action string) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO tag_history (repo_id, name, old_digest, new_digest, actor, at) VALUES ($1, $2, $3, $4, $5, $6)`,
		repoID, c.Name, dbDigest(c.Old), dbDigest(c.New), actor.Name, micros(t.now))
	if err != nil {
		return unavailable(err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return err
	}
	e := gatehouse.Event{Type: event, Actor: actor.Name, Repo: repo, Tag: c.Name, Digest: c.New, Payload: payload}
	if c.New == "" {
		e.Digest = c.Old
	}
	if err := t.AddEvent(ctx, e); err != nil {
		return err
	}
	return t.AddAudit(ctx, actor, action, string(repo)+":"+c.Name, string(payload))
}

// tagged returns what a tag points at, and owns its row. Two statements: a join
// would be of the moment before the lock was waited for.
func (t *Tx) tagged(ctx context.Context, repoID int64, name string) (id int64, d gatehouse.Digest, ok bool, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT manifest_id FROM tag WHERE repo_id = $1 AND name = $2`+t.dialect.own, repoID, name).Scan(&id)
	if none(err) {
		return 0, "", false, nil
	}
	if err == nil {
		err = t.tx.QueryRowContext(ctx, `SELECT digest FROM manifest WHERE id = $1`, id).Scan((*dbDigest)(&d))
	}
	if err != nil {
		return 0, "", false, unavailable(err)
	}
	return id, d, true, nil
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

// TagHistory lists what happened to a tag, newest first, at most n changes;
// before is the ID of the last one seen, 0 for none.
func (t *Tx) TagHistory(ctx context.Context, repo gatehouse.Repo, name string, before int64, n int) ([]TagChange, error) {
	if n <= 0 {
		return nil, nil
	}
	if before == 0 {
		before = math.MaxInt64
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT h.id, h.old_digest, h.new_digest, h.actor, h.at FROM repository r JOIN tag_history h ON h.repo_id = r.id
		WHERE r.path = $1 AND h.name = $2 AND h.id < $3 ORDER BY h.id DESC LIMIT $4`, string(repo), name, before, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []TagChange
	for rows.Next() {
		c := TagChange{Name: name}
		var at int64
		if err := rows.Scan(&c.ID, (*dbDigest)(&c.Old), (*dbDigest)(&c.New), &c.Actor, &at); err != nil {
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

// TagHad reports whether a tag ever pointed at a digest.
func (t *Tx) TagHad(ctx context.Context, repo gatehouse.Repo, name string, digest gatehouse.Digest) (bool, error) {
	var one int
	err := t.tx.QueryRowContext(ctx, `SELECT 1 FROM repository r JOIN tag_history h ON h.repo_id = r.id
		WHERE r.path = $1 AND h.name = $2 AND h.new_digest = $3 LIMIT 1`, string(repo), name, dbDigest(digest)).Scan(&one)
	if none(err) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	return true, nil
}

// Tag is a tag with what it points at.
type Tag struct {
	Name      string
	Digest    gatehouse.Digest
	MediaType string
	Size      int64 // of the manifest, in bytes
	UpdatedBy string
	UpdatedAt time.Time
}

// TagsFrom lists a repository's tags with what they point at, in byte order
// from the given name on, at most n.
func (t *Tx) TagsFrom(ctx context.Context, repo gatehouse.Repo, from string, n int) ([]Tag, error) {
	if n <= 0 {
		return nil, nil
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT t.name, m.digest, m.media_type, m.size, t.updated_by, t.updated_at
		FROM repository r JOIN tag t ON t.repo_id = r.id JOIN manifest m ON m.id = t.manifest_id
		WHERE r.path = $1 AND t.name >= $2 ORDER BY t.name LIMIT $3`, string(repo), from, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Tag
	for rows.Next() {
		var tag Tag
		var at int64
		if err := rows.Scan(&tag.Name, (*dbDigest)(&tag.Digest), &tag.MediaType, &tag.Size, &tag.UpdatedBy, &at); err != nil {
			return nil, unavailable(err)
		}
		tag.UpdatedAt = fromMicros(at)
		out = append(out, tag)
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
