package db_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// TestAloneOnTheDatabase: two servers that keep their blobs in directories of their own must
// not share a database; each would take the other's blobs for lost.
func TestAloneOnTheDatabase(t *testing.T) {
	url := dbtest.Postgres(t)
	refused := func(alone bool) {
		t.Helper()
		d, err := db.OpenPostgres(t.Context(), url, db.Options{Alone: alone})
		if gatehouse.CodeOf(err) != gatehouse.CodeConflict {
			t.Errorf("alone %t beside another: %v", alone, err)
		}
		if err == nil {
			d.Close()
		}
	}
	open := func(alone bool) *db.DB {
		t.Helper()
		d, err := db.OpenPostgres(t.Context(), url, db.Options{Alone: alone})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one := open(true)
	refused(true)
	refused(false)
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	one, two := open(false), open(false)
	refused(true)
	for _, d := range []*db.DB{one, two} {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(true).Close(); err != nil {
		t.Error(err)
	}
}
