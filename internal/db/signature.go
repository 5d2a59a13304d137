package db

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// SignatureStatus is what became of a signature when it was checked.
type SignatureStatus int

// What signatures are. Only the first counts anywhere.
const (
	SignatureValid     SignatureStatus = 1 // by somebody whom a policy names
	SignatureUnjudged  SignatureStatus = 2 // no policy names anybody who could sign this
	SignatureUntrusted SignatureStatus = 3 // by none of those whom policies name
	SignatureBroken    SignatureStatus = 4 // whoever made it
)

// Signature is one signature or attestation of a manifest, as it was found when it
// arrived or when the policies changed.
type Signature struct {
	Artifact  gatehouse.Digest // the manifest that carries it
	Predicate string           // type of the statement; of one that did not hold empty
	Signer    string           // tells signers apart; empty unless Status is SignatureValid
	Status    SignatureStatus
	Format    string
	SignedAt  time.Time // by a trusted clock; zero = none
	ExpiresAt time.Time // zero = never
	FoundAt   time.Time // set by the database
	SignatureDetail
}

// SignatureDetail is what is only shown.
type SignatureDetail struct {
	Identity    gatehouse.Identity  `json:"identity,omitzero"`
	Authorities []string            `json:"authorities,omitempty"` // that it satisfies, POLICY/AUTHORITY
	Log         *gatehouse.LogEntry `json:"log,omitempty"`
	Reasons     []SignatureReason   `json:"reasons,omitempty"` // why it does not hold
	Count       int                 `json:"count,omitempty"`   // of the artifact's signatures, that this stands for
}

// SignatureReason is why a signature is not what an authority asks for.
type SignatureReason struct {
	Authority string `json:"authority,omitempty"`
	Code      string `json:"code"`
	Message   string `json:"message"`
}

// SignatureCheck is one check of all that is attached to a manifest.
type SignatureCheck struct {
	Policies   gatehouse.Digest // set that named the signers
	At         time.Time        // zero: not checked yet
	Incomplete []string         // what was not looked at
}

type signatureKey struct{ artifact, predicate, signer string }

func (s Signature) key() signatureKey {
	return signatureKey{string(s.Artifact), s.Predicate, s.Signer}
}

// movedTo reports whether the same signature may be in another manifest now.
func (s Signature) movedTo(o Signature) bool {
	return s.Status == o.Status && s.Predicate == o.Predicate && s.Signer == o.Signer && s.Format == o.Format && s.Count >= o.Count
}

const signatureColumns = `artifact, predicate, signer, status, format, signed_at, expires_at, found_at, detail`

// SaveSignatures replaces what is known of a manifest's signatures and returns
// those that are new or have another status. version is what
// [Tx.AttachedVersion] was when they were read; current is false, and nothing has
// changed, where it is another one now, or the manifest is gone.
func (t *Tx) SaveSignatures(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest, version string, check SignatureCheck, list []Signature) (changed []Signature, current bool, err error) {
	repoID, ok, err := t.repoID(ctx, repo)
	if err != nil || !ok {
		return nil, false, err
	}
	// The row of the check is ours from here on: whoever attaches something waits, and so does
	// another check.
	incomplete, err := json.Marshal(check.Incomplete)
	if err != nil {
		return nil, false, err
	}
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE signature_check SET policies = $4, checked_at = $5, incomplete = $6
		WHERE repo_id = $1 AND subject = $2 AND version = $3`, repoID, dbDigest(subject), version, string(check.Policies), micros(t.now), string(incomplete)))
	if err != nil || n == 0 {
		return nil, false, err
	}
	if _, err := t.manifestID(ctx, repo, subject, t.dialect.shareOf("m")); err != nil {
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			return nil, false, nil
		}
		return nil, false, err
	}
	old, err := t.signatures(ctx, `WHERE repo_id = $1 AND subject = $2`, repoID, dbDigest(subject))
	if err != nil {
		return nil, false, err
	}
	before, left := map[signatureKey]Signature{}, old
	for _, s := range old {
		before[s.key()] = s
	}
	for _, s := range list {
		left = slices.DeleteFunc(left, func(o Signature) bool { return o.key() == s.key() })
	}
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM signature WHERE repo_id = $1 AND subject = $2`, repoID, dbDigest(subject)); err != nil {
		return nil, false, unavailable(err)
	}
	rows := make([][]any, 0, len(list))
	for _, s := range list {
		was, known := before[s.key()]
		if s.FoundAt = t.now; known {
			s.FoundAt = was.FoundAt
		}
		if !known {
			// Who signs under a tag writes all earlier signatures again, in another manifest.
			i := slices.IndexFunc(left, func(o Signature) bool { return o.movedTo(s) })
			if known = i >= 0; known {
				was = left[i]
				left = slices.Delete(left, i, i+1)
				s.FoundAt = was.FoundAt
			}
		}
		if !known || was.Status != s.Status {
			changed = append(changed, s)
		}
		row, err := signatureRow(repoID, subject, s)
		if err != nil {
			return nil, false, err
		}
		rows = append(rows, row)
	}
	return changed, true, t.insertRows(ctx, `INSERT INTO signature (repo_id, subject, log_index, `+signatureColumns+`) VALUES `, rows)
}

func signatureRow(repoID int64, subject gatehouse.Digest, s Signature) ([]any, error) {
	detail, err := json.Marshal(s.SignatureDetail)
	if err != nil {
		return nil, err
	}
	var index any
	if s.Log != nil {
		index = s.Log.Index
	}
	return []any{repoID, dbDigest(subject), index, dbDigest(s.Artifact), s.Predicate, s.Signer, int(s.Status), s.Format,
		micros(s.SignedAt), micros(s.ExpiresAt), micros(s.FoundAt), string(detail)}, nil
}

// Signatures lists what is known of a manifest's signatures, valid ones first and
// then in the order in which they were found. The check is zero where nothing was
// ever attached.
func (t *Tx) Signatures(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest) ([]Signature, SignatureCheck, error) {
	var c SignatureCheck
	var policies, incomplete string
	var at, repoID int64
	err := t.tx.QueryRowContext(ctx, `SELECT c.repo_id, c.policies, c.checked_at, c.incomplete FROM repository r JOIN signature_check c ON c.repo_id = r.id
		WHERE r.path = $1 AND c.subject = $2`, string(repo), dbDigest(subject)).Scan(&repoID, &policies, &at, &incomplete)
	if none(err) {
		return nil, c, nil
	}
	if err != nil {
		return nil, c, unavailable(err)
	}
	c.Policies, c.At = gatehouse.Digest(policies), fromMicros(at)
	if incomplete != "" {
		if err := json.Unmarshal([]byte(incomplete), &c.Incomplete); err != nil {
			return nil, c, fmt.Errorf("stored check of %s: %w", subject, err)
		}
	}
	list, err := t.signatures(ctx, `WHERE repo_id = $1 AND subject = $2 ORDER BY status, found_at, artifact, predicate, signer`, repoID, dbDigest(subject))
	return list, c, err
}

func (t *Tx) signatures(ctx context.Context, where string, args ...any) ([]Signature, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT `+signatureColumns+` FROM signature `+where, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Signature
	for rows.Next() {
		var s Signature
		var signed, expires, found int64
		var detail string
		if err := rows.Scan((*dbDigest)(&s.Artifact), &s.Predicate, &s.Signer, &s.Status, &s.Format, &signed, &expires, &found, &detail); err != nil {
			return nil, unavailable(err)
		}
		s.SignedAt, s.ExpiresAt, s.FoundAt = fromMicros(signed), fromMicros(expires), fromMicros(found)
		if err := json.Unmarshal([]byte(detail), &s.SignatureDetail); err != nil {
			return nil, fmt.Errorf("stored signature %s: %w", s.Artifact, err)
		}
		out = append(out, s)
	}
	return out, unavailable(rows.Err())
}

// StaleSignatures lists manifests whose signatures were checked by another policy
// set than this, in order of repository and digest behind the given one, at most n.
func (t *Tx) StaleSignatures(ctx context.Context, policies gatehouse.Digest, after Place, n int) (out []Place, err error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT r.path, c.subject FROM repository r JOIN signature_check c ON c.repo_id = r.id
		WHERE c.checked_at > 0 AND c.policies <> $1 AND (r.path > $2 OR r.path = $2 AND c.subject > $3) ORDER BY r.path, c.subject LIMIT $4`,
		string(policies), string(after.Repo), afterDigest(after.Digest), n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		var p Place
		if err := rows.Scan(&p.Repo, (*dbDigest)(&p.Digest)); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, p)
	}
	return out, unavailable(rows.Err())
}

// afterDigest is a digest to compare with: none is before all.
func afterDigest(d gatehouse.Digest) any {
	if d == "" {
		return []byte{0}
	}
	return dbDigest(d)
}

// forgetSignatures removes what was known of manifests that go, as signatures and
// as what is signed, and voids what was concluded from them. A check of a manifest
// that is not there goes with the last that was attached to it.
func (t *Tx) forgetSignatures(ctx context.Context, repoID int64, ids []int64) error {
	return inIDs(ids, 1, func(batch []any, list string) error {
		subjects, err := t.digests(ctx, `SELECT DISTINCT m.subject FROM manifest m JOIN signature_check c ON c.repo_id = m.repo_id AND c.subject = m.subject
			WHERE m.id IN (`+list+`) UNION SELECT s.subject FROM manifest m JOIN signature s ON s.repo_id = m.repo_id AND s.artifact = m.digest
			WHERE m.id IN (`+list+`) ORDER BY 1`, batch...)
		if err != nil {
			return err
		}
		for _, subject := range subjects {
			if err := t.BumpAttached(ctx, repoID, subject); err != nil {
				return err
			}
		}
		in := `repo_id = $1 AND %s IN (SELECT digest FROM manifest WHERE id IN (` + placeholdersFrom(2, len(batch)) + `))`
		for _, query := range []string{
			`DELETE FROM signature WHERE ` + strings.ReplaceAll(in, "%s", "artifact"),
			`DELETE FROM signature WHERE ` + strings.ReplaceAll(in, "%s", "subject"),
			`DELETE FROM signature_check WHERE ` + strings.ReplaceAll(in, "%s", "subject"),
		} {
			if _, err := t.tx.ExecContext(ctx, query, append([]any{repoID}, batch...)...); err != nil {
				return unavailable(err)
			}
		}
		for _, subject := range slices.Compact(subjects) {
			if err := t.dropIdleCheck(ctx, repoID, subject, batch, list); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropIdleCheck removes the check of a manifest that is not there, and that nothing
// but what goes now is attached to.
func (t *Tx) dropIdleCheck(ctx context.Context, repoID int64, subject gatehouse.Digest, going []any, list string) error {
	n := len(going)
	_, err := t.tx.ExecContext(ctx, `DELETE FROM signature_check WHERE repo_id = $`+fmt.Sprint(n+1)+` AND subject = $`+fmt.Sprint(n+2)+`
		AND NOT EXISTS (SELECT 1 FROM manifest m WHERE m.repo_id = signature_check.repo_id AND m.digest = signature_check.subject)
		AND NOT EXISTS (SELECT 1 FROM manifest m WHERE m.repo_id = signature_check.repo_id AND m.subject = signature_check.subject AND m.id NOT IN (`+list+`))`,
		append(slices.Clone(going), repoID, dbDigest(subject))...)
	return unavailable(err)
}
