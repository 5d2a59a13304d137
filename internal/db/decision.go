package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// SaveDecision keeps a decision, so that it can be explained later.
func (t *Tx) SaveDecision(ctx context.Context, d gatehouse.Decision) error {
	doc, err := json.Marshal(d)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(ctx, `INSERT INTO decision (id, at, verdict, doc) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`,
		d.ID, micros(d.At), int(d.Verdict), string(doc))
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// Decision finds a kept decision. CodeNotFound: there is none.
func (t *Tx) Decision(ctx context.Context, id string) (d gatehouse.Decision, err error) {
	var doc string
	err = t.tx.QueryRowContext(ctx, `SELECT doc FROM decision WHERE id = $1`, id).Scan(&doc)
	if errors.Is(err, sql.ErrNoRows) {
		return d, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no decision %q", id)
	}
	if err != nil {
		return d, unavailable(err)
	}
	if err := json.Unmarshal([]byte(doc), &d); err != nil {
		return gatehouse.Decision{}, fmt.Errorf("couldn't read stored decision %s: %w", id, err)
	}
	return d, nil
}

// PruneDecisions drops decisions from before the given time, and the oldest of
// those that are more than max.
func (t *Tx) PruneDecisions(ctx context.Context, before time.Time, max int) error {
	_, err := t.tx.ExecContext(ctx, `DELETE FROM decision WHERE at < $1 OR at <= COALESCE(
		(SELECT at FROM decision ORDER BY at DESC LIMIT 1 OFFSET $2), 0)`, micros(before), max)
	if err != nil {
		return unavailable(err)
	}
	return nil
}
