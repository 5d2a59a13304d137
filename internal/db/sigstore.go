package db

import (
	"context"
	"time"
)

// Sigstore is the state of a private Sigstore: see package keyring, which owns its
// meaning.
type Sigstore struct {
	Generation int64 // of keys and files; 0: there are none yet
	Sealer     string
	DataKey    []byte // sealed
}

// SigstoreKey is one of its keys.
type SigstoreKey struct {
	ID, Kind, Name string
	Public         []byte // PKIX
	Chain          []byte // DER, one certificate after the other; nil: none
	Sealed         []byte
	From, Until    time.Time // Until is zero while the key is in force
}

// Sigstore reads the state.
func (t *Tx) Sigstore(ctx context.Context) (s Sigstore, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT generation, sealer, data_key FROM sigstore WHERE one = 1`).Scan(&s.Generation, &s.Sealer, &s.DataKey)
	if none(err) {
		return Sigstore{}, nil
	}
	return s, unavailable(err)
}

// BeginSigstore makes the state of a first start. first is false where another
// replica has; nothing has changed then.
func (t *Tx) BeginSigstore(ctx context.Context, sealer string, dataKey []byte) (first bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `INSERT INTO sigstore (one, generation, sealer, data_key) VALUES (1, 1, $1, $2)
		ON CONFLICT (one) DO NOTHING`, sealer, dataKey))
	return n > 0, err
}

// StepSigstore begins a change of the given generation, which others then can not
// change any more. It is false where there is a newer one.
func (t *Tx) StepSigstore(ctx context.Context, generation int64) (newest bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE sigstore SET generation = generation + 1 WHERE one = 1 AND generation = $1`, generation))
	return n > 0, err
}

// SigstoreKeys lists all keys, those that are no longer in force as well.
func (t *Tx) SigstoreKeys(ctx context.Context) ([]SigstoreKey, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT id, kind, name, public, chain, sealed, from_at, until_at FROM sigstore_key ORDER BY id`)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []SigstoreKey
	for rows.Next() {
		var k SigstoreKey
		var from, until int64
		if err := rows.Scan(&k.ID, &k.Kind, &k.Name, &k.Public, &k.Chain, &k.Sealed, &from, &until); err != nil {
			return nil, unavailable(err)
		}
		k.From, k.Until = fromMicros(from), fromMicros(until)
		if len(k.Chain) == 0 {
			k.Chain = nil
		}
		out = append(out, k)
	}
	return out, ended(rows)
}

// AddSigstoreKeys adds keys.
func (t *Tx) AddSigstoreKeys(ctx context.Context, keys ...SigstoreKey) error {
	rows := make([][]any, len(keys))
	for i, k := range keys {
		rows[i] = []any{k.ID, k.Kind, k.Name, k.Public, append([]byte{}, k.Chain...), k.Sealed, micros(k.From), micros(k.Until)}
	}
	return t.insertRows(ctx, `INSERT INTO sigstore_key (id, kind, name, public, chain, sealed, from_at, until_at) VALUES `, rows)
}

// EndSigstoreKey says until when a key is in force. sealed is sealed with that.
func (t *Tx) EndSigstoreKey(ctx context.Context, id string, until time.Time, sealed []byte) error {
	_, err := t.tx.ExecContext(ctx, `UPDATE sigstore_key SET until_at = $2, sealed = $3 WHERE id = $1`, id, micros(until), sealed)
	return unavailable(err)
}

// SigstoreFiles reads all files of the TUF repository.
func (t *Tx) SigstoreFiles(ctx context.Context) (map[string][]byte, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT path, body FROM sigstore_file`)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	out := map[string][]byte{}
	for rows.Next() {
		var path string
		var body []byte
		if err := rows.Scan(&path, &body); err != nil {
			return nil, unavailable(err)
		}
		out[path] = body
	}
	return out, ended(rows)
}

// SigstoreFile reads one file. CodeNotFound: there is none at the path.
func (t *Tx) SigstoreFile(ctx context.Context, path string) (body []byte, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT body FROM sigstore_file WHERE path = $1`, path).Scan(&body)
	if none(err) {
		return nil, notFound("", "there is no file %.200q", path)
	}
	return body, unavailable(err)
}

// PutSigstoreFile adds or replaces a file.
func (t *Tx) PutSigstoreFile(ctx context.Context, path string, body []byte) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO sigstore_file (path, body) VALUES ($1, $2)
		ON CONFLICT (path) DO UPDATE SET body = excluded.body`, path, body)
	return unavailable(err)
}
