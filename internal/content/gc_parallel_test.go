package content_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// TestGCInParallel collects on three replicas while everything else happens.
func TestGCInParallel(t *testing.T) {
	contenttest.RunGC(t, func(t *testing.T, opts content.Options) []*content.Content {
		store, dir := mem.New(), t.TempDir()
		var d *db.DB
		var out []*content.Content
		for range 3 {
			switch {
			case strings.HasPrefix(t.Name(), "TestPostgres/"): // each replica has connections of its own
				d = dbtest.At(t, dir, db.Options{})
				t.Cleanup(func() { d.Close() })
			case d == nil: // one process owns a SQLite file
				d = openDB(t, db.Options{})
			}
			out = append(out, content.New(d, store, opts))
		}
		return out
	})
}
