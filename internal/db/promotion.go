package db

import (
	"context"
	"math"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Promotion is an image that was copied from one repository to another after its
// gates were looked at.
type Promotion struct {
	ID          int64
	At          time.Time // set by the database
	Actor       string
	Source      gatehouse.Repo
	Destination gatehouse.Repo
	Tag         string // of the destination
	Digest      gatehouse.Digest
	Attestation gatehouse.Digest // the manifest that carries the signed statement
	Doc         []byte           // JSON: what was told of it
}

// AddPromotion keeps a promotion and returns its id.
func (t *Tx) AddPromotion(ctx context.Context, p Promotion) (id int64, err error) {
	err = t.tx.QueryRowContext(ctx, `INSERT INTO promotion (at, actor, source, destination, tag, digest, attestation, doc)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id`, micros(t.now), p.Actor, string(p.Source), string(p.Destination), p.Tag,
		dbDigest(p.Digest), dbDigest(p.Attestation), string(p.Doc)).Scan(&id)
	return id, unavailable(err)
}

const promotionColumns = `id, at, actor, source, destination, tag, digest, attestation, doc`

// LastPromotion finds the last promotion of a digest from one repository to a tag
// of another. ok is false where there was none.
func (t *Tx) LastPromotion(ctx context.Context, source, destination gatehouse.Repo, tag string, digest gatehouse.Digest) (p Promotion, ok bool, err error) {
	list, err := t.promotions(ctx, `WHERE destination = $1 AND digest = $2 AND source = $3 AND tag = $4 ORDER BY id DESC LIMIT 1`,
		string(destination), dbDigest(digest), string(source), tag)
	if err != nil || len(list) == 0 {
		return p, false, err
	}
	return list[0], true, nil
}

// PromotionFilter chooses promotions; what is empty chooses all.
type PromotionFilter struct {
	Destination gatehouse.Repo
	Digest      gatehouse.Digest
}

// Promotions lists promotions, newest first, before the one with the given id (0:
// the end), at most n.
func (t *Tx) Promotions(ctx context.Context, f PromotionFilter, before int64, n int) ([]Promotion, error) {
	if n <= 0 {
		return nil, nil
	}
	if before == 0 {
		before = math.MaxInt64
	}
	where, args := `WHERE id < $1`, []any{before, n}
	if f.Destination != "" {
		args = append(args, string(f.Destination))
		where += ` AND destination = $3`
	}
	if f.Digest != "" {
		args = append(args, dbDigest(f.Digest))
		where += ` AND digest = $` + string(rune('0'+len(args)))
	}
	return t.promotions(ctx, where+` ORDER BY id DESC LIMIT $2`, args...)
}

func (t *Tx) promotions(ctx context.Context, where string, args ...any) ([]Promotion, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT `+promotionColumns+` FROM promotion `+where, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Promotion
	for rows.Next() {
		var p Promotion
		var at int64
		var doc string
		if err := rows.Scan(&p.ID, &at, &p.Actor, &p.Source, &p.Destination, &p.Tag, (*dbDigest)(&p.Digest), (*dbDigest)(&p.Attestation), &doc); err != nil {
			return nil, unavailable(err)
		}
		p.At, p.Doc = fromMicros(at), []byte(doc)
		out = append(out, p)
	}
	return out, unavailable(rows.Err())
}

// ServerKey is a key pair that all replicas sign with.
type ServerKey struct {
	Public []byte // PEM, PKIX
	Sealed []byte // PEM, encrypted
}

// ServerKey finds the key pair for a purpose. ok is false where there is none yet.
func (t *Tx) ServerKey(ctx context.Context, purpose string) (k ServerKey, ok bool, err error) {
	var public, sealed string
	err = t.tx.QueryRowContext(ctx, `SELECT public, sealed FROM server_key WHERE purpose = $1`, purpose).Scan(&public, &sealed)
	if none(err) {
		return k, false, nil
	}
	return ServerKey{[]byte(public), []byte(sealed)}, err == nil, unavailable(err)
}

// AddServerKey keeps a key pair, unless there is one for that purpose: then it
// returns that one. A new one is noted in the audit record.
func (t *Tx) AddServerKey(ctx context.Context, actor gatehouse.Actor, purpose string, k ServerKey) (ServerKey, error) {
	n, err := affected(t.tx.ExecContext(ctx, `INSERT INTO server_key (purpose, public, sealed, made_at) VALUES ($1, $2, $3, $4) ON CONFLICT (purpose) DO NOTHING`,
		purpose, string(k.Public), string(k.Sealed), micros(t.now)))
	if err != nil {
		return k, err
	}
	if n == 0 { // another replica was faster
		old, ok, err := t.ServerKey(ctx, purpose)
		if err == nil && !ok {
			err = notFound("", "the %s key of the server is gone", purpose)
		}
		return old, err
	}
	return k, t.AddAudit(ctx, actor, "server.key.make", purpose, string(k.Public))
}
