package content_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// BenchmarkCollect collects 10,000 blobs on disk that nothing refers to.
func BenchmarkCollect(b *testing.B) {
	const n = 10_000
	for round := 0; b.Loop(); round++ {
		b.StopTimer()
		dir := b.TempDir()
		d, err := db.OpenSQLite(b.Context(), filepath.Join(dir, "gatehouse.db"), db.Options{})
		if err != nil {
			b.Fatal(err)
		}
		store, err := disk.Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		unreferenced(b, d, store, n)
		c := content.New(d, store, noGC)
		b.StartTimer()
		report, err := c.Collect(b.Context(), content.CollectOptions{})
		if err != nil || report.Blobs != n || report.Objects != n {
			b.Fatal(report, err)
		}
		b.StopTimer()
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// unreferenced stores n small objects that a repository pushed and never used.
func unreferenced(b *testing.B, d *db.DB, store blob.Store, n int) {
	ctx := b.Context()
	var blobs []db.Blob
	for i := range n {
		text := fmt.Sprint("blob ", i)
		key := blob.NewKey(time.Now())
		if _, err := blob.Put(ctx, store, key, strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
		blobs = append(blobs, db.Blob{Digest: gatehouse.DigestOf([]byte(text)), Size: int64(len(text)), StorageKey: key})
	}
	err := d.Write(ctx, func(tx *db.Tx) error {
		repo, err := tx.EnsureRepo(ctx, "a")
		if err != nil {
			return err
		}
		for _, blob := range blobs {
			id, _, err := tx.AddBlob(ctx, blob)
			if err != nil {
				return err
			}
			if err := tx.LinkBlob(ctx, repo, id, tx.Now()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
