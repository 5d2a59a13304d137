package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Upload is the row of one upload session.
type Upload struct {
	ID           string
	Repo         gatehouse.Repo
	RepoID       int64
	Algorithm    string
	Size         int64  // bytes stored so far
	Head         []byte // all of them while they are few
	HashState    []byte // running hash over the bytes in storage; nil: they are in Head
	StorageKey   string // where they lie, or will
	StorageState []byte // the store's own note
	Actor        string
	UpdatedAt    time.Time
}

const uploadColumns = `u.id, r.path, u.repo_id, u.algorithm, u.size, u.head, u.hash_state, u.storage_key, u.storage_state, u.actor, u.updated_at`

func scanUpload(row interface{ Scan(...any) error }) (u Upload, err error) {
	var updated int64
	err = row.Scan(&u.ID, &u.Repo, &u.RepoID, &u.Algorithm, &u.Size, &u.Head, &u.HashState, &u.StorageKey, &u.StorageState, &u.Actor, &updated)
	u.UpdatedAt = fromMicros(updated)
	return u, err
}

// AddUpload opens a session.
func (t *Tx) AddUpload(ctx context.Context, u Upload) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO upload (id, repo_id, algorithm, actor, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)`,
		u.ID, u.RepoID, u.Algorithm, u.Actor, micros(t.now))
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// UploadsReach reports whether an actor has n or more sessions open. It looks
// at n of them at most.
func (t *Tx) UploadsReach(ctx context.Context, actor string, n int) (bool, error) {
	var one int
	err := t.tx.QueryRowContext(ctx, `SELECT 1 FROM upload WHERE actor = $1 AND state = 0 LIMIT 1 OFFSET $2`, actor, max(0, n-1)).Scan(&one)
	if none(err) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	return true, nil
}

// Upload finds an open session of repo.
// CodeNotFound with detail BLOB_UPLOAD_UNKNOWN: there is none.
func (t *Tx) Upload(ctx context.Context, repo gatehouse.Repo, id string) (Upload, error) {
	u, err := scanUpload(t.tx.QueryRowContext(ctx, `SELECT `+uploadColumns+` FROM upload u JOIN repository r ON r.id = u.repo_id
		WHERE u.id = $1 AND r.path = $2 AND u.state = 0`, id, string(repo)))
	if none(err) {
		return Upload{}, uploadUnknown()
	}
	if err != nil {
		return Upload{}, unavailable(err)
	}
	return u, nil
}

// OpenUpload finds an open session by its id alone. ok is false for none.
func (t *Tx) OpenUpload(ctx context.Context, id string) (u Upload, ok bool, err error) {
	u, err = scanUpload(t.tx.QueryRowContext(ctx, `SELECT `+uploadColumns+` FROM upload u JOIN repository r ON r.id = u.repo_id
		WHERE u.id = $1 AND u.state = 0`, id))
	if none(err) {
		return Upload{}, false, nil
	}
	if err != nil {
		return Upload{}, false, unavailable(err)
	}
	return u, true, nil
}

func uploadUnknown() error {
	return notFound("BLOB_UPLOAD_UNKNOWN", "the upload session does not exist, or it has ended")
}

// LeaseUpload takes the right to append until the given time and returns the
// row as it is now. CodeConflict: someone else holds it.
func (t *Tx) LeaseUpload(ctx context.Context, repo gatehouse.Repo, id, lease string, until time.Time) (Upload, error) {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE upload SET lease = $2, leased_until = $3
		WHERE id = $1 AND state = 0 AND (lease = '' OR leased_until < $4)`, id, lease, micros(until), micros(t.now)))
	if err != nil {
		return Upload{}, err
	}
	u, err := t.Upload(ctx, repo, id)
	if err != nil {
		return Upload{}, err
	}
	if n == 0 {
		return Upload{}, gatehouse.Errorf(gatehouse.CodeConflict, "another request is writing to this upload session").
			WithHint("wait until it has ended, then ask for the session's offset")
	}
	return u, nil
}

// KeepUpload prolongs a lease. held is false where it has been lost.
func (t *Tx) KeepUpload(ctx context.Context, id, lease string, until time.Time) (held bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE upload SET leased_until = $3 WHERE id = $1 AND state = 0 AND lease = $2`, id, lease, micros(until)))
	return n > 0, err
}

// KeyUpload notes the storage key before anything is written under it.
func (t *Tx) KeyUpload(ctx context.Context, id, lease, key string) error {
	return t.leased(t.tx.ExecContext(ctx, `UPDATE upload SET storage_key = $3 WHERE id = $1 AND state = 0 AND lease = $2`, id, lease, key))
}

// SaveUpload stores the progress of u and gives the lease back.
// CodeConflict: the lease was lost.
func (t *Tx) SaveUpload(ctx context.Context, u Upload, lease string) error {
	return t.leased(t.tx.ExecContext(ctx, `UPDATE upload SET size = $3, head = $4, hash_state = $5, storage_state = $6, updated_at = $7, lease = '', leased_until = 0
		WHERE id = $1 AND state = 0 AND lease = $2`, u.ID, lease, u.Size, u.Head, u.HashState, u.StorageState, micros(t.now)))
}

func (t *Tx) leased(res interface{ RowsAffected() (int64, error) }, err error) error {
	if err != nil {
		return unavailable(err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return gatehouse.Errorf(gatehouse.CodeConflict, "the upload session was taken over by another request").
			WithHint("ask for the session's offset and go on from there")
	}
	return nil
}

// AppendHead stores the bytes of a small upload whose size was size, unless
// anyone has written since or is writing. saved is false in that case.
func (t *Tx) AppendHead(ctx context.Context, id string, size int64, head []byte) (saved bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE upload SET size = $3, head = $4, updated_at = $5, lease = '', leased_until = 0
		WHERE id = $1 AND size = $2 AND hash_state IS NULL AND state = 0 AND (lease = '' OR leased_until < $5)`,
		id, size, len(head), head, micros(t.now)))
	return n > 0, err
}

// ReleaseUpload gives a lease back without any other change.
func (t *Tx) ReleaseUpload(ctx context.Context, id, lease string) error {
	if _, err := t.tx.ExecContext(ctx, `UPDATE upload SET lease = '', leased_until = 0 WHERE id = $1 AND lease = $2`, id, lease); err != nil {
		return unavailable(err)
	}
	return nil
}

// EndUpload removes the row of a session of the given size. ended is false where
// it was written to, taken or ended since.
func (t *Tx) EndUpload(ctx context.Context, id, lease string, size int64) (ended bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `DELETE FROM upload WHERE id = $1 AND size = $3 AND state = 0
		AND (lease = $2 OR leased_until < $4)`, id, lease, size, micros(t.now)))
	return n > 0, err
}

// Dropped is a session that has ended and whose bytes are to be deleted.
type Dropped struct {
	ID  string
	Key string // empty: there are none
	// Busy: a request may still be writing under Key. The row must stay until
	// its lease is over, see [Tx.DroppedUploads].
	Busy bool
}

// DropUpload ends a session whose bytes are to be deleted: nobody can use it
// any more. The row goes with [Tx.ForgetUpload] after the bytes. Without a lease
// it takes the session out of the hands of a request that is writing to it,
// whose next saving fails. ok is false where there is no such session, or the
// lease was lost.
func (t *Tx) DropUpload(ctx context.Context, id, lease string) (d Dropped, ok bool, err error) {
	var leasedUntil int64
	err = t.tx.QueryRowContext(ctx, `UPDATE upload SET state = 1, head = NULL, updated_at = $3
		WHERE id = $1 AND state = 0 AND (CAST($2 AS TEXT) = '' OR lease = $2) RETURNING storage_key, leased_until`, id, lease, micros(t.now)).
		Scan(&d.Key, &leasedUntil)
	if none(err) {
		return Dropped{}, false, nil
	}
	if err != nil {
		return Dropped{}, false, unavailable(err)
	}
	d.ID, d.Busy = id, lease == "" && leasedUntil >= micros(t.now)
	if d.Key == "" {
		return d, true, t.ForgetUpload(ctx, id)
	}
	return d, true, nil
}

// ForgetUpload removes the row of a dropped session whose bytes are gone.
func (t *Tx) ForgetUpload(ctx context.Context, id string) error {
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM upload WHERE id = $1 AND state = 1`, id); err != nil {
		return unavailable(err)
	}
	return nil
}

// ExpireUploads drops open sessions that nobody has written to since before.
func (t *Tx) ExpireUploads(ctx context.Context, before time.Time) error {
	_, err := t.tx.ExecContext(ctx, `UPDATE upload SET state = 1, head = NULL WHERE state = 0 AND updated_at < $1 AND leased_until < $2`, micros(before), micros(t.now))
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// DroppedUploads lists sessions whose bytes are to be deleted and whose lease
// is over, oldest first, at most n.
func (t *Tx) DroppedUploads(ctx context.Context, n int) ([]Dropped, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT id, storage_key FROM upload
		WHERE state = 1 AND leased_until < $1 ORDER BY updated_at, id LIMIT $2`, micros(t.now), n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Dropped
	for rows.Next() {
		var d Dropped
		if err := rows.Scan(&d.ID, &d.Key); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, d)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}
