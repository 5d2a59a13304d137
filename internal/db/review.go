package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Review is a review that was decided, kept so that other policies can judge it.
// Reviews that no policy could tell apart are one, that happened several times.
type Review struct {
	Digest   gatehouse.Digest // of what it is told by
	First    time.Time
	Last     time.Time
	Times    int64
	Decision string // the last
	Verdict  gatehouse.Verdict
	Doc      []byte // JSON; nil in NoteReview: it is known
}

// NoteReview counts a review that has been kept before. known is false where it has
// not, or not any more: then [Tx.SaveReview] keeps it.
func (t *Tx) NoteReview(ctx context.Context, r Review) (known bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE review SET last_at = CASE WHEN last_at > $1 THEN last_at ELSE $1 END, times = times + $2, decision = $3, verdict = $4
		WHERE digest = $5`, micros(r.Last), r.Times, r.Decision, int(r.Verdict), dbDigest(r.Digest)))
	return n > 0, err
}

// SaveReview keeps a review, or counts it where another replica was faster.
func (t *Tx) SaveReview(ctx context.Context, r Review) error {
	small, err := deflate(r.Doc)
	if err != nil {
		return err
	}
	const rowSize = 200
	_, err = t.tx.ExecContext(ctx, `INSERT INTO review (digest, first_at, last_at, times, decision, verdict, size, doc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (digest) DO UPDATE SET last_at = excluded.last_at, times = review.times + excluded.times, decision = excluded.decision, verdict = excluded.verdict`,
		dbDigest(r.Digest), micros(r.First), micros(r.Last), r.Times, r.Decision, int(r.Verdict), len(small)+rowSize, small)
	return unavailable(err)
}

// Reviews lists reviews that happened at or after since, those that happened last
// first, at most n, behind the one that happened at before and has the digest after
// (zero: from the start). Two replicas may see the same one twice while it goes on
// happening.
func (t *Tx) Reviews(ctx context.Context, since, before time.Time, after gatehouse.Digest, n int) ([]Review, error) {
	where, args := `last_at >= $1`, []any{micros(since), n}
	if !before.IsZero() {
		where += ` AND (last_at < $3 OR last_at = $3 AND digest > $4)`
		args = append(args, micros(before), dbDigest(after))
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT digest, first_at, last_at, times, decision, verdict, doc FROM review
		WHERE `+where+` ORDER BY last_at DESC, digest LIMIT $2`, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Review
	for rows.Next() {
		var r Review
		var first, last int64
		var small []byte
		if err := rows.Scan((*dbDigest)(&r.Digest), &first, &last, &r.Times, &r.Decision, &r.Verdict, &small); err != nil {
			return nil, unavailable(err)
		}
		r.First, r.Last = fromMicros(first), fromMicros(last)
		if r.Doc, err = inflate(small); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, unavailable(rows.Err())
}

// PruneReviews drops reviews that happened last before the given time, and those
// that happened longest ago of what is more than so many or takes more than so many
// bytes.
func (t *Tx) PruneReviews(ctx context.Context, before time.Time, max int, bytesMax int64) error {
	_, err := t.tx.ExecContext(ctx, `DELETE FROM review WHERE last_at < $1 OR digest IN (
		SELECT digest FROM (SELECT digest, ROW_NUMBER() OVER (ORDER BY last_at DESC, digest) AS nth,
			SUM(size) OVER (ORDER BY last_at DESC, digest) AS bytes FROM review) ranked
		WHERE nth > $2 OR bytes > $3)`, micros(before), max, bytesMax)
	return unavailable(err)
}
