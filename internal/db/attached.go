package db

import (
	"cmp"
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

// pastOfTag are the manifests m that a tag of repository $1 pointed at, by lines h of
// its history; signedManifest is 1 where a valid signature was found in m, otherwise 0.
var (
	pastOfTag = `FROM repository r JOIN tag_history h ON h.repo_id = r.id
		JOIN manifest m ON m.repo_id = r.id AND m.digest = h.new_digest
		WHERE r.path = $1 AND ` + since
	signedManifest = `(SELECT COALESCE(MAX(1), 0) FROM signature s WHERE s.repo_id = r.id AND s.artifact = m.digest AND s.status = ` + strconv.Itoa(int(SignatureValid)) + `)`
)

// TagManifests lists the manifests that are still there of those that a tag
// pointed at since it was last deleted, at most n: first those in which a valid
// signature was found, so that nobody moves the tag until they are out of reach,
// each newest first. The one that it points at now is among them.
func (t *Tx) TagManifests(ctx context.Context, repo gatehouse.Repo, name string, n int) ([]gatehouse.Digest, error) {
	return t.digests(ctx, `SELECT m.digest `+pastOfTag+` AND h.name = $2 GROUP BY r.id, m.digest
		ORDER BY `+signedManifest+` DESC, MAX(h.id) DESC LIMIT $3`, string(repo), name, n)
}

// attachedBodyMax bounds the manifests that a list of what is attached brings whole,
// in bytes: a page of a thousand of them is 8 MiB.
const attachedBodyMax = 8 << 10

// Kinds of lines of [Tx.Attached].
const (
	lineTag = iota
	linePast
	lineReferrer
)

// Attached tells in one query, and so of one moment, what [Tx.ManifestByTag] tells of
// tags and index, [Tx.TagManifests] of tags (past at most of each) and [Tx.Referrers]
// of subject (n at most). An index of "" is none.
func (t *Tx) Attached(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest, index string, tags []string, past, n int) (*gatehouse.Attached, error) {
	args := []any{string(repo), dbDigest(subject), dbDigest(""), "", n, subject.FallbackTag(), attachedBodyMax, index}
	for _, tag := range tags {
		args = append(args, tag)
	}
	if len(tags) > 0 {
		args = append(args, past)
	}
	rows, err := t.tx.QueryContext(ctx, attachedQuery(len(tags)), args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	out := &gatehouse.Attached{Tags: map[string]*gatehouse.Manifest{}, Past: map[string][]gatehouse.Digest{}, Bodies: map[gatehouse.Digest][]byte{}}
	var before, referrers []attachedLine
	for rows.Next() {
		var l attachedLine
		m := gatehouse.Manifest{Repo: repo}
		if err := rows.Scan(&l.kind, &l.tag, &l.signed, &l.seq, (*dbDigest)(&m.Digest), &m.MediaType, &m.ArtifactType, &m.Size, &m.Body); err != nil {
			return nil, unavailable(err)
		}
		l.Descriptor = m.Descriptor
		switch l.kind {
		case lineTag:
			out.Tags[l.tag] = &m
		case linePast:
			before = append(before, l)
		case lineReferrer:
			referrers = append(referrers, l)
			if m.Body != nil {
				out.Bodies[m.Digest] = m.Body
			}
		}
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	slices.SortFunc(before, func(a, b attachedLine) int { return cmp.Or(cmp.Compare(b.signed, a.signed), cmp.Compare(b.seq, a.seq)) })
	for _, l := range before {
		out.Past[l.tag] = append(out.Past[l.tag], l.Digest)
	}
	slices.SortFunc(referrers, func(a, b attachedLine) int { return cmp.Compare(a.seq, b.seq) })
	for _, l := range referrers {
		out.Referrers = append(out.Referrers, l.Descriptor)
	}
	return out, nil
}

// attachedLine is a line of [attachedQuery]: they come in no order.
type attachedLine struct {
	gatehouse.Descriptor
	kind, signed int
	tag          string
	seq          int64
}

// attachedQuery finds the manifests under the tags $8 and those after it, the past of
// those after it, for each as many as the last says, and the referrers: [referrersQuery]
// has $1 to $6.
func attachedQuery(tags int) string {
	q := `SELECT ` + strconv.Itoa(lineTag) + `, t.name, 0, m.id, m.digest, m.media_type, m.artifact_type, m.size, m.body
		FROM repository r JOIN tag t ON t.repo_id = r.id JOIN manifest m ON m.id = t.manifest_id
		WHERE r.path = $1 AND t.name IN (` + placeholdersFrom(8, tags+1) + `)`
	for i := range tags {
		q += ` UNION ALL SELECT ` + strconv.Itoa(linePast) + `, page.name, page.signed, page.seq, page.digest, '', '', 0, NULL
			FROM (SELECT h.name, m.digest, MAX(h.id) AS seq, ` + signedManifest + ` AS signed
				` + pastOfTag + ` AND h.name = $` + strconv.Itoa(9+i) + ` GROUP BY r.id, h.name, m.digest
				ORDER BY signed DESC, seq DESC LIMIT $` + strconv.Itoa(9+tags) + `) page`
	}
	return q + ` UNION ALL SELECT ` + strconv.Itoa(lineReferrer) + `, '', 0, b.id, b.digest, b.media_type, b.artifact_type, b.size, CASE WHEN b.size <= $7 THEN b.body END
		FROM (` + referrersQuery + `) page JOIN manifest b ON b.id = page.seq`
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

// AttachedToManifest is [Tx.AttachedVersion] of a manifest that the repository holds.
// CodeNotFound: it holds none of that digest.
func (t *Tx) AttachedToManifest(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest) (version string, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT COALESCE(c.version, '') FROM repository r JOIN manifest m ON m.repo_id = r.id
		LEFT JOIN signature_check c ON c.repo_id = r.id AND c.subject = m.digest
		WHERE r.path = $1 AND m.digest = $2`, string(repo), dbDigest(subject)).Scan(&version)
	if none(err) {
		return "", notFound("MANIFEST_UNKNOWN", "repository %s holds no manifest %s", repo, subject)
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
