package db

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Keepable is a manifest as garbage collection sees it.
type Keepable struct {
	ID       int64
	RepoID   int64
	Digest   gatehouse.Digest
	Size     int64 // bytes
	PushedAt time.Time
	// Tag points at it; empty: none does. A tag that is named after another
	// manifest does not count: it is Attached.
	Tag      string
	Attached []gatehouse.Digest // by such tags, to these
	Past     []gatehouse.Digest // and by tags of signatures that point elsewhere now
	Held     bool
	// ReviewAfter is when its waiting review is due; zero: none waits.
	ReviewAfter time.Time
}

// Keeper says that one manifest is kept as long as another is.
type Keeper struct {
	ID, By int64
	Why    KeeperKind
}

// KeeperKind is how a manifest keeps another.
type KeeperKind int

// Kinds of keepers.
const (
	KeptByIndex    KeeperKind = 1 // which lists it
	KeptByReferrer KeeperKind = 2 // whose subject it is
	KeptBySubject  KeeperKind = 3 // to which it refers
	KeptByName     KeeperKind = 4 // after which its tag is named
	KeptByPast     KeeperKind = 5 // after which a tag of signatures is named that pointed at it
)

// attachedTag matches the tags that say of which manifest something is:
// signatures, attestations and SBOMs of cosign, and the referrers tag of the
// distribution-spec. A sha512 does not fit into the 128 characters of a tag.
var attachedTag = regexp.MustCompile(`^(sha256-[0-9a-f]{64})(?:\.sig|\.att|\.sbom)?$`)

// attachedTags are the names of such tags for a digest.
func attachedTags(d gatehouse.Digest) []string {
	base := d.Algorithm() + "-" + d.Hex()
	if !attachedTag.MatchString(base) {
		return nil
	}
	return []string{base, base + ".sig", base + ".att", base + ".sbom"}
}

// Keepables reads manifests for garbage collection; what is gone is left out.
func (t *Tx) Keepables(ctx context.Context, ids []int64) ([]Keepable, error) {
	var out []Keepable
	err := inIDs(ids, 1, func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT m.id, m.repo_id, m.digest, m.size, m.pushed_at,
			COALESCE((SELECT t.name FROM tag t WHERE t.manifest_id = m.id AND t.name NOT LIKE 'sha%-%' LIMIT 1), ''),
			(SELECT COUNT(*) FROM hold h WHERE h.repo_id = m.repo_id AND h.digest = m.digest),
			COALESCE((SELECT g.review_after FROM gc_task g WHERE g.kind = 1 AND g.key = m.id), 0)
			FROM manifest m WHERE m.id IN (`+list+`)`, batch...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			var k Keepable
			var pushed, review, held int64
			if err := rows.Scan(&k.ID, &k.RepoID, (*dbDigest)(&k.Digest), &k.Size, &pushed, &k.Tag, &held, &review); err != nil {
				return unavailable(err)
			}
			k.PushedAt, k.ReviewAfter, k.Held = fromMicros(pushed), fromMicros(review), held > 0
			out = append(out, k)
		}
		if err := rows.Err(); err != nil {
			return unavailable(err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, t.attachedTo(ctx, out)
}

// attachedTo fills in the tags that name another manifest.
func (t *Tx) attachedTo(ctx context.Context, list []Keepable) error {
	at, ids := make(map[int64]*Keepable, len(list)), make([]int64, 0, len(list))
	for i := range list {
		if k := &list[i]; k.Tag == "" && !k.Held {
			at[k.ID], ids = k, append(ids, k.ID)
		}
	}
	if err := t.attachedBefore(ctx, at, ids); err != nil {
		return err
	}
	return inIDs(ids, 1, func(batch []any, marks string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT manifest_id, name FROM tag WHERE manifest_id IN (`+marks+`)`, batch...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var name string
			if err := rows.Scan(&id, &name); err != nil {
				return unavailable(err)
			}
			k := at[id]
			before := k.Tag
			k.Tag = name
			// Mirrors name images after themselves: that is a tag like any other.
			if to, ok := AttachedTo(name); ok && to != k.Digest {
				k.Tag, k.Attached = before, append(k.Attached, to)
			}
		}
		if err := rows.Err(); err != nil {
			return unavailable(err)
		}
		return nil
	})
}

// Keepers finds what keeps the given manifests, at most n edges: more = true
// where there are more. Tags that name another manifest are not looked at.
func (t *Tx) Keepers(ctx context.Context, ids []int64, n int) (out []Keeper, more bool, err error) {
	err = inIDs(ids, 1, func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT c.child_id, c.parent_id, 1 FROM manifest_child c WHERE c.child_id IN (`+list+`)
			UNION ALL SELECT m.id, r.id, 2 FROM manifest m JOIN manifest r ON r.repo_id = m.repo_id AND r.subject = m.digest WHERE m.id IN (`+list+`)
			UNION ALL SELECT m.id, s.id, 3 FROM manifest m JOIN manifest s ON s.repo_id = m.repo_id AND s.digest = m.subject WHERE m.id IN (`+list+`)`, batch...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			if len(out) == n {
				more = true
				return nil
			}
			var k Keeper
			if err := rows.Scan(&k.ID, &k.By, &k.Why); err != nil {
				return unavailable(err)
			}
			out = append(out, k)
		}
		if err := rows.Err(); err != nil {
			return unavailable(err)
		}
		return nil
	})
	return out, more, err
}

// ManifestRow finds a manifest's row. ok is false where there is none.
func (t *Tx) ManifestRow(ctx context.Context, repoID int64, digest gatehouse.Digest) (id int64, ok bool, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT id FROM manifest WHERE repo_id = $1 AND digest = $2`, repoID, dbDigest(digest)).Scan(&id)
	if none(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, unavailable(err)
	}
	return id, true, nil
}

// RepoPath returns the path of a repository's row.
func (t *Tx) RepoPath(ctx context.Context, id int64) (repo gatehouse.Repo, err error) {
	if err := t.tx.QueryRowContext(ctx, `SELECT path FROM repository WHERE id = $1`, id).Scan(&repo); err != nil {
		return "", unavailable(err)
	}
	return repo, nil
}

// TagsToDrop lists the tags that must go with manifests of one repository: those
// that point at them, and those that are named after them. The transaction owns
// them.
func (t *Tx) TagsToDrop(ctx context.Context, repoID int64, list []Keepable) ([]string, error) {
	var names []string
	ids := make([]int64, len(list))
	for i, k := range list {
		ids[i], names = k.ID, append(names, attachedTags(k.Digest)...)
	}
	seen := map[string]bool{}
	add := func(query string, args []any) error {
		tags, err := t.strings(ctx, query+t.dialect.own, args...)
		for _, tag := range tags {
			seen[tag] = true
		}
		return err
	}
	err := inIDs(ids, 1, func(batch []any, marks string) error {
		return add(`SELECT name FROM tag WHERE manifest_id IN (`+marks+`) ORDER BY name`, batch)
	})
	for len(names) > 0 && err == nil {
		take := min(len(names), idsMax)
		args, _ := placeholders(names[:take], func(s string) any { return s })
		err = add(`SELECT name FROM tag WHERE repo_id = $1 AND name IN (`+placeholdersFrom(2, len(args))+`) ORDER BY name`, append([]any{repoID}, args...))
		names = names[take:]
	}
	return slices.Sorted(maps.Keys(seen)), err
}

// Leaving says what becomes of what deleted manifests needed.
type Leaving struct {
	Event  string    // of the tasks that are made
	Review time.Time // when manifests that they kept, or that kept them, are looked at
	Links  time.Time // until when links to blobs that no other manifest needs stay
}

// DeleteManifests removes manifests of one repository with their edges. Their
// tags are gone, and nothing else lists them as children, when this is called.
func (t *Tx) DeleteManifests(ctx context.Context, repoID int64, ids []int64, leave Leaving) error {
	left, err := t.neighbours(ctx, repoID, ids)
	if err != nil {
		return err
	}
	if err := t.forgetSignatures(ctx, repoID, ids); err != nil {
		return err
	}
	if err := t.addTasks(ctx, ManifestTask, leave.Event, leave.Review, left...); err != nil {
		return err
	}
	var blobs []int64
	err = inIDs(ids, 1, func(batch []any, list string) error {
		got, err := t.ids(ctx, `SELECT DISTINCT blob_id FROM manifest_blob WHERE manifest_id IN (`+list+`) ORDER BY blob_id`, batch...)
		blobs = append(blobs, got...)
		return err
	})
	if err != nil {
		return err
	}
	for _, query := range []string{
		`DELETE FROM manifest_blob WHERE manifest_id IN (`, `DELETE FROM manifest_child WHERE parent_id IN (`, `DELETE FROM manifest WHERE id IN (`,
	} {
		err := inIDs(ids, 1, func(batch []any, list string) error {
			if _, err := t.tx.ExecContext(ctx, query+list+`)`, batch...); err != nil {
				return unavailable(err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return t.letExpire(ctx, repoID, blobs, leave)
}

// neighbours are the manifests, other than the given ones, that one of them
// keeps or that are kept by one.
func (t *Tx) neighbours(ctx context.Context, repoID int64, ids []int64) ([]int64, error) {
	going := make(map[int64]bool, len(ids))
	for _, id := range ids {
		going[id] = true
	}
	var out []int64
	err := inIDs(ids, 1, func(batch []any, list string) error {
		got, err := t.ids(ctx, `SELECT c.child_id FROM manifest_child c WHERE c.parent_id IN (`+list+`)
			UNION SELECT r.id FROM manifest m JOIN manifest r ON r.repo_id = m.repo_id AND r.subject = m.digest WHERE m.id IN (`+list+`)
			UNION SELECT s.id FROM manifest m JOIN manifest s ON s.repo_id = m.repo_id AND s.digest = m.subject WHERE m.id IN (`+list+`) ORDER BY 1`, batch...)
		if err != nil {
			return err
		}
		digests, err := t.digests(ctx, `SELECT digest FROM manifest WHERE id IN (`+list+`)`, batch...)
		if err != nil {
			return err
		}
		past, err := t.pastOf(ctx, repoID, digests)
		for _, id := range append(got, past...) {
			if !going[id] {
				going[id], out = true, append(out, id)
			}
		}
		return err
	})
	return out, err
}

// letExpire ends the repository's links to blobs that none of its manifests
// needs any more.
func (t *Tx) letExpire(ctx context.Context, repoID int64, blobs []int64, leave Leaving) error {
	return inIDs(blobs, 3, func(batch []any, list string) error {
		// A push that needs one of them and has not committed yet holds its link.
		if t.dialect.own != "" {
			if _, err := t.ids(ctx, `SELECT blob_id FROM repo_blob WHERE repo_id = $1 AND blob_id IN (`+placeholdersFrom(2, len(batch))+`)
				ORDER BY blob_id`+t.dialect.own, append([]any{repoID}, batch...)...); err != nil {
				return err
			}
		}
		expiring, err := t.ids(ctx, `UPDATE repo_blob SET expires_at = $1 WHERE repo_id = $2 AND expires_at IS NULL AND blob_id IN (`+list+`)
			AND NOT EXISTS (SELECT 1 FROM manifest_blob e WHERE e.blob_id = repo_blob.blob_id AND e.repo_id = repo_blob.repo_id) RETURNING blob_id`,
			append([]any{micros(leave.Links), repoID}, batch...)...)
		if err != nil {
			return err
		}
		return t.addTasks(ctx, BlobTask, leave.Event, leave.Links, expiring...)
	})
}
