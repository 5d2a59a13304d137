package content_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestGCInParallel collects on three replicas while everything else happens.
func TestGCInParallel(t *testing.T) {
	contenttest.RunGC(t, func(t *testing.T, opts content.Options) []*content.Content {
		d, store := openDB(t, db.Options{}), mem.New()
		return []*content.Content{content.New(d, store, opts), content.New(d, store, opts), content.New(d, store, opts)}
	})
}
