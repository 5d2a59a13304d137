package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// measureMatch imports one advisory into stores of 1,000 and of 100,000 images
// that are all affected, and measures from the commit of the import until every
// verdict answers anew.
func measureMatch(ctx context.Context, b *bench) ([]row, error) {
	var rows []row
	for _, c := range []struct {
		images, packages int
		limit            time.Duration
	}{
		{1_000, 20_000, 500 * time.Millisecond},
		{100_000, 200_000, 5 * time.Second},
	} {
		got, err := oneAdvisory(ctx, b, c.images, c.packages, c.limit)
		if err != nil {
			return rows, err
		}
		rows = append(rows, got...)
	}
	return rows, nil
}

func oneAdvisory(ctx context.Context, b *bench, images, packages int, limit time.Duration) ([]row, error) {
	dir := filepath.Join(b.work, fmt.Sprintf("match-%d", images))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := db.OpenSQLite(ctx, filepath.Join(dir, "meta.db"), db.Options{})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	start := time.Now()
	if err := fill(ctx, d, images, packages); err != nil {
		return nil, err
	}
	fmt.Fprintf(b.log, "    filled %d images in %.0f s\n", images, time.Since(start).Seconds())
	adv, stop, err := workers(ctx, d, dir)
	if err != nil {
		return nil, err
	}
	defer stop()
	// Something is known already, so that the import is a change and no first
	// generation.
	if _, err := publish(ctx, adv, "CVE-2026-0001", "npm", "nothing-has-this", "2.0.0"); err != nil {
		return nil, err
	}
	// The package is in the base layers, which every image has.
	took, err := publish(ctx, adv, "CVE-2026-0002", "npm", "in-every-base", "99.0.0")
	if err != nil {
		return nil, err
	}
	var all, flagged int64
	err = d.Read(ctx, func(tx *db.Tx) (err error) {
		all, flagged, err = tx.ImageCount(ctx, gatehouse.SeverityCritical)
		return err
	})
	if err != nil {
		return nil, err
	}
	if all != int64(images) || flagged != all {
		return nil, fmt.Errorf("%d of %d images are flagged, want all of %d", flagged, all, images)
	}
	return []row{{
		what:     fmt.Sprintf("one advisory, %d affected images (%d package versions): commit until every verdict answers anew", images, packages),
		measured: fmt.Sprintf("%.0f ms", float64(took.Microseconds())/1000), limit: "< " + limit.String(), missed: took >= limit,
	}}, nil
}

// workers opens the advisories beside d and runs the jobs that match by them, until
// stop is called.
func workers(ctx context.Context, d *db.DB, dir string) (adv *pipeline.Advisories, stop func(), err error) {
	store, err := disk.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	if adv, err = pipeline.OpenAdvisories(d, store, filepath.Join(dir, "advisories")); err != nil {
		return nil, nil, err
	}
	p := pipeline.New(pipeline.Options{
		DB: d, Content: content.New(d, store, content.Options{}), Advisories: adv, Analysis: index.All(),
		Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- job.New(d, job.Options{}).Run(ctx, p.Handlers()) }()
	return adv, func() { cancel(); <-done; adv.Close() }, nil
}

// publish imports one record, waits until it is in force, and tells how long
// that took from the return of the import, whose transaction had committed.
func publish(ctx context.Context, adv *pipeline.Advisories, id, ecosystem, name, fixed string) (time.Duration, error) {
	record, err := json.Marshal(map[string]any{
		"schema_version": "1.6.0", "id": id, "modified": "2026-01-01T00:00:00Z",
		"severity": []any{map[string]string{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}},
		"affected": []any{map[string]any{
			"package": map[string]string{"ecosystem": ecosystem, "name": name},
			"ranges":  []any{map[string]any{"type": "SEMVER", "events": []any{map[string]string{"introduced": "0"}, map[string]string{"fixed": fixed}}}},
		}},
	})
	if err != nil {
		return 0, err
	}
	records := osv.Read(ctx, id, strings.NewReader(string(record)), int64(len(record)), osv.DefaultLimits())
	gen, err := adv.Import(ctx, gatehouse.System("bench"), advisory.Info{Source: id, BuiltAt: time.Now()}, records)
	if err != nil {
		return 0, err
	}
	committed := time.Now()
	_, err = adv.InForce(ctx, gen)
	return time.Since(committed), err
}

// fill stores images as the pipeline would have: each of one of 100 base
// layers, one of 1,000 runtime layers and one of 2,000 application layers, with
// packages in all of them.
func fill(ctx context.Context, d *db.DB, images, packages int) error {
	counts := []int{min(100, images), min(1_000, images), min(2_000, images)}
	perLayer := packages / (counts[0] + counts[1] + counts[2])
	ids := make([][]int64, len(counts))
	for kind, n := range counts {
		for i := range n {
			inv := gatehouse.LayerInventory{
				DiffID: gatehouse.DigestOf(fmt.Appendf(nil, "%d/%d", kind, i)), Blob: gatehouse.DigestOf(fmt.Appendf(nil, "blob %d/%d", kind, i)),
				Indexer: "bench", Complete: true,
			}
			set := gatehouse.PackageSet{Path: fmt.Sprintf("layer%d/package.json", kind), Extractor: "bench"}
			if kind == 0 {
				set.Packages = append(set.Packages, gatehouse.Package{Type: "npm", Name: "in-every-base", Version: fmt.Sprintf("1.%d.0", i)})
			}
			for p := range perLayer {
				set.Packages = append(set.Packages, gatehouse.Package{Type: "npm", Name: fmt.Sprintf("p%d-%d", kind, p), Version: fmt.Sprintf("1.%d.0", i)})
			}
			inv.Sets = []gatehouse.PackageSet{set}
			err := d.Write(ctx, func(tx *db.Tx) error {
				id, err := tx.SaveLayer(ctx, inv)
				ids[kind] = append(ids[kind], id)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	const batch = 500
	for from := 0; from < images; from += batch {
		err := d.Write(ctx, func(tx *db.Tx) error {
			for i := from; i < min(from+batch, images); i++ {
				if err := fillImage(ctx, tx, i, ids); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fillImage(ctx context.Context, tx *db.Tx, i int, layers [][]int64) error {
	var ids []int64
	for _, of := range layers {
		ids = append(ids, of[i%len(of)])
	}
	img := db.Image{
		Digest: gatehouse.DigestOf(fmt.Appendf(nil, "image %d", i)), Indexer: "bench", Spaces: []string{"npm"},
		Config: []byte("{}"), Complete: true, Reasons: []string{},
	}
	// Once every layer has been seen, an image brings nothing new, and its sums
	// are zero like theirs.
	if i >= len(layers[len(layers)-1]) {
		_, err := tx.SaveImage(ctx, img, ids, nil)
		return err
	}
	fresh, err := tx.UnmatchedPackages(ctx, ids, "")
	if err != nil {
		return err
	}
	row, err := tx.SaveImage(ctx, img, ids, nil)
	if err != nil {
		return err
	}
	for id, p := range fresh {
		if err := tx.NamePackage(ctx, id, "", db.Name{Space: "npm", Name: p.Name}); err != nil {
			return err
		}
	}
	return tx.CountImage(ctx, row, "", 0)
}
