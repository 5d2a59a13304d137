package db

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// BreakGlass is a token that lets one image run once in spite of what the policies
// say. The token itself is not kept.
type BreakGlass struct {
	ID         int64
	Namespace  string
	Digest     gatehouse.Digest // of the image
	Requester  string           // who may use it, as the cluster names them
	Everything bool             // also in spite of what policies say of the object
	Reason     string
	CreatedBy  string
	CreatedAt  time.Time
	ExpiresAt  time.Time
	RevokedAt  time.Time // zero = never
	UsedAt     time.Time // zero = not yet
	UsedBy     string    // uid of the object that it let run
	Decision   string    // that it was used in
}

// BreakGlassMax bounds the tokens that can be used at one time.
const BreakGlassMax = 1000

const breakGlassColumns = `id, namespace, digest, requester, everything, reason, created_by, created_at, expires_at, revoked_at, used_at, used_by, decision`

// AddBreakGlass keeps a token by the digest of it, with its event and audit record.
// It holds for ttl by the database's clock. CodeTooMany: there are [BreakGlassMax]
// that can be used already.
func (t *Tx) AddBreakGlass(ctx context.Context, actor gatehouse.Actor, token gatehouse.Digest, b BreakGlass, ttl time.Duration, proof json.RawMessage) (BreakGlass, error) {
	if err := t.take(ctx, turnPolicies); err != nil {
		return b, err
	}
	var open int
	if err := t.tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM break_glass WHERE used_at = 0 AND revoked_at = 0 AND expires_at > $1`, micros(t.now)).Scan(&open); err != nil {
		return b, unavailable(err)
	}
	if open >= BreakGlassMax {
		return b, gatehouse.Errorf(gatehouse.CodeTooMany, "%d break-glass tokens can be used already", open).WithHint("revoke those that nobody needs")
	}
	b.CreatedBy, b.CreatedAt, b.ExpiresAt = actor.Name, fromMicros(micros(t.now)), fromMicros(micros(t.now.Add(ttl)))
	everything := 0
	if b.Everything {
		everything = 1
	}
	err := t.tx.QueryRowContext(ctx, `INSERT INTO break_glass (token, namespace, digest, requester, everything, reason, created_by, created_at, expires_at, revoked_at, used_at, used_by, decision)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, '', '') RETURNING id`,
		dbDigest(token), b.Namespace, dbDigest(b.Digest), b.Requester, everything, b.Reason, b.CreatedBy, micros(b.CreatedAt), micros(b.ExpiresAt)).Scan(&b.ID)
	if err != nil {
		return b, unavailable(err)
	}
	return b, t.breakGlassChanged(ctx, actor, "break-glass.create", b, proof)
}

// BreakGlassByToken finds a token by its digest, and keeps it as it is until the
// transaction ends. ok is false where there is none.
func (t *Tx) BreakGlassByToken(ctx context.Context, token gatehouse.Digest) (b BreakGlass, ok bool, err error) {
	list, err := t.breakGlasses(ctx, `WHERE token = $1`+t.dialect.own, dbDigest(token))
	if err != nil || len(list) == 0 {
		return b, false, err
	}
	return list[0], true, nil
}

// BreakGlassesUsed lists the tokens for an image that were used and hold still, newest
// first, n at most.
func (t *Tx) BreakGlassesUsed(ctx context.Context, image gatehouse.Digest, n int) ([]BreakGlass, error) {
	return t.breakGlasses(ctx, `WHERE digest = $1 AND used_at > 0 AND revoked_at = 0 AND expires_at > $2 ORDER BY id DESC LIMIT $3`, dbDigest(image), micros(t.now), n)
}

// UseBreakGlass notes that a token was used, with its event and audit record. What
// was used, revoked or has expired is CodeConflict: of two transactions one uses it.
func (t *Tx) UseBreakGlass(ctx context.Context, actor gatehouse.Actor, b BreakGlass, proof json.RawMessage) error {
	b.UsedAt = fromMicros(micros(t.now))
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE break_glass SET used_at = $1, used_by = $2, decision = $3
		WHERE id = $4 AND used_at = 0 AND revoked_at = 0 AND expires_at > $1`, micros(b.UsedAt), b.UsedBy, b.Decision, b.ID))
	if err != nil {
		return err
	}
	if n == 0 {
		return gatehouse.Errorf(gatehouse.CodeConflict, "break-glass token %d cannot be used any more", b.ID)
	}
	return t.breakGlassChanged(ctx, actor, "break-glass.use", b, proof)
}

// RevokeBreakGlass ends a token that was not used. CodeNotFound: there is none;
// CodeConflict: it was used.
func (t *Tx) RevokeBreakGlass(ctx context.Context, actor gatehouse.Actor, id int64) (BreakGlass, error) {
	list, err := t.breakGlasses(ctx, `WHERE id = $1`+t.dialect.own, id)
	if err != nil {
		return BreakGlass{}, err
	}
	if len(list) == 0 {
		return BreakGlass{}, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no break-glass token %d", id)
	}
	b := list[0]
	if !b.UsedAt.IsZero() {
		return b, gatehouse.Errorf(gatehouse.CodeConflict, "break-glass token %d has been used already", id).WithHint("gatehouse explain %s tells by what", b.Decision)
	}
	if !b.RevokedAt.IsZero() {
		return b, nil
	}
	b.RevokedAt = fromMicros(micros(t.now))
	if _, err := t.tx.ExecContext(ctx, `UPDATE break_glass SET revoked_at = $1 WHERE id = $2`, micros(b.RevokedAt), id); err != nil {
		return b, unavailable(err)
	}
	return b, t.breakGlassChanged(ctx, actor, "break-glass.revoke", b, nil)
}

// BreakGlasses lists tokens, newest first, before the one with the given id (0: the
// end), at most n.
func (t *Tx) BreakGlasses(ctx context.Context, before int64, n int) ([]BreakGlass, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	return t.breakGlasses(ctx, `WHERE id < $1 ORDER BY id DESC LIMIT $2`, before, n)
}

// PruneBreakGlass drops tokens that ended before the given time; the audit record
// keeps them.
func (t *Tx) PruneBreakGlass(ctx context.Context, before time.Time) error {
	_, err := t.tx.ExecContext(ctx, `DELETE FROM break_glass WHERE expires_at < $1`, micros(before))
	return unavailable(err)
}

func (t *Tx) breakGlasses(ctx context.Context, where string, args ...any) ([]BreakGlass, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT `+breakGlassColumns+` FROM break_glass `+where, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []BreakGlass
	for rows.Next() {
		var b BreakGlass
		var created, expires, revoked, used int64
		if err := rows.Scan(&b.ID, &b.Namespace, (*dbDigest)(&b.Digest), &b.Requester, &b.Everything, &b.Reason, &b.CreatedBy,
			&created, &expires, &revoked, &used, &b.UsedBy, &b.Decision); err != nil {
			return nil, unavailable(err)
		}
		b.CreatedAt, b.ExpiresAt, b.RevokedAt, b.UsedAt = fromMicros(created), fromMicros(expires), fromMicros(revoked), fromMicros(used)
		out = append(out, b)
	}
	return out, unavailable(rows.Err())
}

// breakGlassChanged tells of a change; the audit record keeps all of the token but
// what it is used by. proof is the statement that was signed about it, if any.
func (t *Tx) breakGlassChanged(ctx context.Context, actor gatehouse.Actor, action string, b BreakGlass, proof json.RawMessage) error {
	payload, err := json.Marshal(b)
	if err != nil {
		return err
	}
	event := gatehouse.Event{Type: gatehouse.EventBreakGlass, Actor: actor.Name, Digest: b.Digest, Payload: payload}
	if err := t.AddEvent(ctx, event); err != nil {
		return err
	}
	detail, err := json.Marshal(struct {
		BreakGlass
		Statement json.RawMessage `json:",omitempty"`
	}{b, proof})
	if err != nil {
		return err
	}
	return t.AddAudit(ctx, actor, action, strconv.FormatInt(b.ID, 10), string(detail))
}
