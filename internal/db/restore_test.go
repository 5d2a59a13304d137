package db_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// TestEventsOfAnotherCluster: a dump that is restored elsewhere brings the
// transaction numbers of the server that it came from, which may be far ahead.
// What happens there is neither held back nor put behind what happened before.
func TestEventsOfAnotherCluster(t *testing.T) {
	ctx := t.Context()
	url := dbtest.Postgres(t)
	open := func() *db.DB {
		d, err := db.OpenPostgres(ctx, url, db.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	add := func(d *db.DB, kind gatehouse.EventType) {
		t.Helper()
		if err := d.Write(ctx, func(tx *db.Tx) error { return tx.AddEvent(ctx, gatehouse.Event{Type: kind}) }); err != nil {
			t.Fatal(err)
		}
	}
	events := func(d *db.DB, after int64) (out []gatehouse.Event) {
		t.Helper()
		err := d.Get(ctx, func(tx *db.Tx) (err error) {
			out, err = tx.Events(ctx, after, 10)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	d := open()
	add(d, "first")
	add(d, "second")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	// As a restore leaves them: the first below the new server's numbers.
	if _, err := conn.Exec(ctx, `UPDATE event SET txid = CASE type WHEN 'first' THEN 1000 ELSE 4000000000000 END`); err != nil {
		t.Fatal(err)
	}
	for range 2 { // opening again changes nothing
		d = open()
		defer d.Close()
	}
	add(d, "third")
	seen := events(d, 0)
	if len(seen) != 3 || seen[0].Type != "first" || seen[1].Type != "second" || seen[2].Type != "third" {
		t.Fatalf("from the beginning: %v", seen)
	}
	if rest := events(d, seen[1].Seq); len(rest) != 1 || rest[0].Type != "third" {
		t.Errorf("after the last one of before: %v", rest)
	}
}
