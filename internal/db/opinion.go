package db

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Opinion is what another scanner said of an image.
type Opinion struct {
	Digest     gatehouse.Digest
	Source     string // the scanner, as the settings name it
	AskedAt    time.Time
	AnsweredAt time.Time // zero: never
	Error      string    // why it did not answer the last time; empty: it did
	Doc        []byte    // its last answer; empty where there is none
}

// SaveOpinion stores an answer, or, with Error set, that there was none: then
// the answer before stays. The times are those of the transaction.
func (t *Tx) SaveOpinion(ctx context.Context, o Opinion) error {
	packed, answered := []byte{}, int64(0)
	if o.Error == "" {
		var err error
		if packed, err = pack(o.Doc); err != nil {
			return err
		}
		answered = micros(t.now)
	}
	_, err := t.tx.ExecContext(ctx, `INSERT INTO opinion (digest, source, asked_at, answered_at, error, doc) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (digest, source) DO UPDATE SET asked_at = excluded.asked_at, error = excluded.error,
			answered_at = CASE WHEN excluded.error = '' THEN excluded.answered_at ELSE opinion.answered_at END,
			doc = CASE WHEN excluded.error = '' THEN excluded.doc ELSE opinion.doc END`,
		dbDigest(o.Digest), o.Source, micros(t.now), answered, o.Error, packed)
	return unavailable(err)
}

// Opinions lists what other scanners said of an image, by source.
func (t *Tx) Opinions(ctx context.Context, digest gatehouse.Digest) ([]Opinion, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT source, asked_at, answered_at, error, doc FROM opinion WHERE digest = $1 ORDER BY source`, dbDigest(digest))
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Opinion
	for rows.Next() {
		o := Opinion{Digest: digest}
		var asked, answered int64
		var packed []byte
		if err := rows.Scan(&o.Source, &asked, &answered, &o.Error, &packed); err != nil {
			return nil, unavailable(err)
		}
		if len(packed) > 0 {
			if o.Doc, err = unpack(packed); err != nil {
				return nil, err
			}
		}
		o.AskedAt, o.AnsweredAt = fromMicros(asked), fromMicros(answered)
		out = append(out, o)
	}
	return out, unavailable(rows.Err())
}

// ImagesWithoutOpinion lists stored images that the source was never asked
// about, behind the given row, at most n.
func (t *Tx) ImagesWithoutOpinion(ctx context.Context, source string, after int64, n int) ([]Affected, error) {
	return t.affected(ctx, `SELECT i.id, i.digest FROM image i WHERE i.id > $1 AND i.state = 0
		AND EXISTS (SELECT 1 FROM manifest m WHERE m.digest = i.digest)
		AND NOT EXISTS (SELECT 1 FROM opinion o WHERE o.digest = i.digest AND o.source = $3) ORDER BY i.id LIMIT $2`, after, n, source)
}

// AddPullToken lets whoever knows the secret pull from one repository until the
// given time. What has ended is removed.
func (t *Tx) AddPullToken(ctx context.Context, secret string, repo gatehouse.Repo, until time.Time) error {
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM pull_token WHERE expires_at <= $1`, micros(t.now)); err != nil {
		return unavailable(err)
	}
	sum := sha256.Sum256([]byte(secret))
	_, err := t.tx.ExecContext(ctx, `INSERT INTO pull_token (hash, repo, expires_at) VALUES ($1, $2, $3)`, sum[:], string(repo), micros(until))
	return unavailable(err)
}

// PullToken tells what the secret opens. ok is false where it opens nothing, or
// nothing any more.
func (t *Tx) PullToken(ctx context.Context, secret string) (repo gatehouse.Repo, ok bool, err error) {
	sum := sha256.Sum256([]byte(secret))
	err = t.tx.QueryRowContext(ctx, `SELECT repo FROM pull_token WHERE hash = $1 AND expires_at > $2`, sum[:], micros(t.now)).Scan(&repo)
	if none(err) {
		return "", false, nil
	}
	return repo, err == nil, unavailable(err)
}

// DropPullToken ends a token before its time.
func (t *Tx) DropPullToken(ctx context.Context, secret string) error {
	sum := sha256.Sum256([]byte(secret))
	_, err := t.tx.ExecContext(ctx, `DELETE FROM pull_token WHERE hash = $1`, sum[:])
	return unavailable(err)
}
