package db

import (
	"context"
	"crypto/rand"
)

// Installation returns the id of this database's installation, which is made
// when it is first asked for and stays: all servers on the database share it, and
// a dump keeps it. Storage that other installations could reach is marked with it.
func (d *DB) Installation(ctx context.Context) (id string, err error) {
	err = d.Write(ctx, func(tx *Tx) error {
		const key = "installation"
		if _, err := tx.tx.ExecContext(ctx, `INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING`, key, rand.Text()); err != nil {
			return unavailable(err)
		}
		if err := tx.tx.QueryRowContext(ctx, `SELECT value FROM setting WHERE key = $1`, key).Scan(&id); err != nil {
			return unavailable(err)
		}
		return nil
	})
	return id, err
}
