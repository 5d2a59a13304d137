package content_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// template is an empty database file: migrating one per test would take most of
// the tests' time.
var template = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "content-test-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "gatehouse.db")
	d, err := db.OpenSQLite(context.Background(), path, db.Options{})
	if err != nil {
		return nil, err
	}
	if err := d.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

func openDB(t *testing.T, opts db.Options) *db.DB {
	t.Helper()
	return openDBAt(t, filepath.Join(t.TempDir(), "gatehouse.db"), opts)
}

func openDBAt(t *testing.T, path string, opts db.Options) *db.DB {
	t.Helper()
	empty, err := template()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, empty, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := db.OpenSQLite(t.Context(), path, opts)
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
