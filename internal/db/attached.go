package db

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// AttachedTo tells of which manifest something is by the name of its tag:
// sha256-HEX, which lists referrers, or sha256-HEX.sig, .att and .sbom, where
// clients keep signatures, attestations and SBOMs.
func AttachedTo(tag string) (subject gatehouse.Digest, ok bool) {
	m := attachedTag.FindStringSubmatch(tag)
	if m == nil {
		return "", false
	}
	return gatehouse.Digest(strings.Replace(m[1], "-", ":", 1)), true
}

// signatureTag reports whether a tag holds signatures, attestations or SBOMs by
// itself: what it pointed at before stays attached, since clients overwrite it.
func signatureTag(tag string) bool { return attachedTag.MatchString(tag) && strings.Contains(tag, ".") }

// signatureTags are the names of such tags for a digest.
func signatureTags(d gatehouse.Digest) []string {
	return slices.DeleteFunc(attachedTags(d), func(tag string) bool { return !signatureTag(tag) })
}

// since is the condition that a line h of a tag's history is younger than the last
// deletion of the tag, which withdraws what it held.
const since = `h.id > COALESCE((SELECT MAX(d.id) FROM tag_history d WHERE d.repo_id = h.repo_id AND d.name = h.name AND d.new_digest IS NULL), 0)`

// TagManifests lists the manifests that are still there of those that a tag
// pointed at since it was last deleted, at most n: first those in which a valid
// signature was found, so that nobody moves the tag until they are out of reach,
// each newest first. The one that it points at now is among them.
func (t *Tx) TagManifests(ctx context.Context, repo gatehouse.Repo, name string, n int) ([]gatehouse.Digest, error) {
	return t.digests(ctx, `SELECT m.digest FROM repository r JOIN tag_history h ON h.repo_id = r.id
		JOIN manifest m ON m.repo_id = r.id AND m.digest = h.new_digest
		WHERE r.path = $1 AND h.name = $2 AND `+since+` GROUP BY r.id, m.digest
		ORDER BY (SELECT COUNT(*) FROM signature s WHERE s.repo_id = r.id AND s.artifact = m.digest AND s.status = $4) > 0 DESC, MAX(h.id) DESC LIMIT $3`,
		string(repo), name, n, int(SignatureValid))
}

// attachedBefore fills in what manifests without a tag were attached to by tags of
// signatures that have moved on.
func (t *Tx) attachedBefore(ctx context.Context, at map[int64]*Keepable, ids []int64) error {
	return inIDs(ids, 1, func(batch []any, marks string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT DISTINCT m.id, h.name FROM manifest m JOIN tag_history h ON h.repo_id = m.repo_id AND h.new_digest = m.digest
			WHERE m.id IN (`+marks+`) AND h.name >= 'sha256-' AND h.name < 'sha256.' AND `+since+` ORDER BY m.id, h.name`, batch...)
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
			if to, ok := AttachedTo(name); ok && signatureTag(name) && to != k.Digest && !slices.Contains(k.Attached, to) {
				k.Past = append(k.Past, to)
			}
		}
		return unavailable(rows.Err())
	})
}

// pastOf finds the manifests that tags of signatures of these digests pointed at.
func (t *Tx) pastOf(ctx context.Context, repoID int64, digests []gatehouse.Digest) (out []int64, err error) {
	var names []string
	for _, d := range digests {
		names = append(names, signatureTags(d)...)
	}
	for len(names) > 0 && err == nil {
		take := min(len(names), idsMax)
		args, _ := placeholders(names[:take], func(s string) any { return s })
		var got []int64
		got, err = t.ids(ctx, `SELECT DISTINCT m.id FROM tag_history h JOIN manifest m ON m.repo_id = h.repo_id AND m.digest = h.new_digest
			WHERE h.repo_id = $1 AND h.name IN (`+placeholdersFrom(2, len(args))+`) ORDER BY m.id`, append([]any{repoID}, args...)...)
		out, names = append(out, got...), names[take:]
	}
	return out, err
}

// BumpAttached notes that what is attached to subject, which need not be there, is
// another than before: everything that was concluded from it is void.
func (t *Tx) BumpAttached(ctx context.Context, repoID int64, subject gatehouse.Digest) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO signature_check (repo_id, subject, version) VALUES ($1, $2, $3)
		ON CONFLICT (repo_id, subject) DO UPDATE SET version = excluded.version`, repoID, dbDigest(subject), rand.Text())
	return unavailable(err)
}

// AttachedVersion names the state of what is attached to a manifest; it is empty
// where nothing ever was.
func (t *Tx) AttachedVersion(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest) (version string, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT c.version FROM repository r JOIN signature_check c ON c.repo_id = r.id
		WHERE r.path = $1 AND c.subject = $2`, string(repo), dbDigest(subject)).Scan(&version)
	if none(err) {
		return "", nil
	}
	return version, unavailable(err)
}

// AwaitsSubject reports whether something has been attached to a manifest that is
// just arriving.
func (t *Tx) AwaitsSubject(ctx context.Context, repoID int64, subject gatehouse.Digest) (bool, error) {
	var one int
	err := t.tx.QueryRowContext(ctx, `SELECT 1 FROM signature_check WHERE repo_id = $1 AND subject = $2`, repoID, dbDigest(subject)).Scan(&one)
	if none(err) {
		return false, nil
	}
	return err == nil, unavailable(err)
}

// Ancestor is an index that lists a manifest, itself or by an index between them.
type Ancestor struct {
	Digest  gatehouse.Digest
	Version string // of what is attached to it, as of [Tx.AttachedVersion]
}

// ancestorLevelsMax bounds how deep indexes in indexes are followed upward.
const ancestorLevelsMax = 3

// Ancestors lists the indexes of a repository that list a manifest, at most n: those
// with a valid signature first, then the nearest, then the oldest, so that nobody's
// other indexes push out those that are signed, nor the older ones by which an index
// that is signed is reached.
func (t *Tx) Ancestors(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, n int) ([]Ancestor, error) {
	front := []gatehouse.Digest{digest}
	seen := map[gatehouse.Digest]bool{digest: true}
	var signed, others []Ancestor
	for level := 0; level < ancestorLevelsMax && len(front) > 0; level++ {
		args, _ := placeholders(front, func(d gatehouse.Digest) any { return dbDigest(d) })
		list, err := t.ancestors(ctx, append([]any{string(repo), n}, args...), placeholdersFrom(3, len(args)))
		if err != nil {
			return nil, err
		}
		front = nil
		for _, a := range list {
			switch {
			case seen[a.Digest]:
				continue
			case a.signed:
				signed = append(signed, a.Ancestor)
			default:
				others = append(others, a.Ancestor)
			}
			seen[a.Digest], front = true, append(front, a.Digest)
		}
	}
	all := append(signed, others...)
	return all[:min(n, len(all))], nil
}

type signedAncestor struct {
	Ancestor
	signed bool
}

// ancestors lists the indexes that list one of several manifests: the signed ones
// first, each the oldest first.
func (t *Tx) ancestors(ctx context.Context, args []any, marks string) ([]signedAncestor, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT DISTINCT p.id, p.digest, COALESCE(s.version, ''), COALESCE((SELECT MAX(1) FROM signature v
			WHERE v.repo_id = r.id AND v.subject = p.digest AND v.status = `+strconv.Itoa(int(SignatureValid))+`), 0) AS signed FROM repository r JOIN manifest m ON m.repo_id = r.id
		JOIN manifest_child c ON c.child_id = m.id JOIN manifest p ON p.id = c.parent_id
		LEFT JOIN signature_check s ON s.repo_id = r.id AND s.subject = p.digest
		WHERE r.path = $1 AND m.digest IN (`+marks+`) ORDER BY signed DESC, p.id LIMIT $2`, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []signedAncestor
	for rows.Next() {
		var a signedAncestor
		var id int64
		if err := rows.Scan(&id, (*dbDigest)(&a.Digest), &a.Version, &a.signed); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, a)
	}
	return out, unavailable(rows.Err())
}

// digests runs a query of one column of digests.
func (t *Tx) digests(ctx context.Context, query string, args ...any) ([]gatehouse.Digest, error) {
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []gatehouse.Digest
	for rows.Next() {
		var d gatehouse.Digest
		if err := rows.Scan((*dbDigest)(&d)); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, d)
	}
	return out, unavailable(rows.Err())
}
