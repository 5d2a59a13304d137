package content_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

func openDB(t *testing.T, opts db.Options) *db.DB {
	t.Helper()
	d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "gatehouse.db"), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestContentOnDisk(t *testing.T) {
	contenttest.Run(t, func(t *testing.T) gatehouse.Content {
		store, err := disk.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return open(t, store)
	})
}

func TestContentInMemory(t *testing.T) {
	contenttest.Run(t, func(t *testing.T) gatehouse.Content { return open(t, mem.New()) })
}

// open returns a registry that must be sound when the test has ended.
func open(t *testing.T, store blob.Store) *content.Content {
	d := openDB(t, db.Options{})
	c := content.New(d, store, content.Options{})
	t.Cleanup(func() { checkAtEnd(t, c) })
	return c
}

// checkAtEnd runs after the test's context has ended.
func checkAtEnd(t *testing.T, c *content.Content) {
	wrong, err := c.Check(context.Background(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Errorf("check: %s", w)
	}
}

func wantSound(t *testing.T, c *content.Content) {
	t.Helper()
	checkAtEnd(t, c)
}
