package db_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// One bad package at a thousand paths is more than anybody reads.
func TestFindingsOfOneImageAreBounded(t *testing.T) {
	ctx := context.Background()
	d := dbtest.At(t, t.TempDir(), db.Options{})
	defer d.Close()
	p := gatehouse.Package{Type: "npm", Name: "bad", Version: "1"}
	inv := gatehouse.LayerInventory{DiffID: gatehouse.DigestOf([]byte("l")), Blob: gatehouse.DigestOf([]byte("b")), Indexer: "x"}
	const flaws, most = 500, 2000 // with the real bound it takes a minute under the race detector
	db.LowerFindingsMax(t, most)
	for i := range most/flaws + 1 {
		inv.Sets = append(inv.Sets, gatehouse.PackageSet{Path: fmt.Sprint("at/", i), Extractor: "npm", Packages: []gatehouse.Package{p}})
	}
	found := db.PackageFindings{}
	for i := range flaws {
		found.Findings = append(found.Findings, gatehouse.Finding{ID: fmt.Sprint("CVE-", i), Package: p, Severity: gatehouse.SeverityHigh})
	}
	img := db.Image{Digest: gatehouse.DigestOf([]byte("image")), Config: []byte("{}")}
	err := d.Write(ctx, func(tx *db.Tx) error {
		layer, err := tx.SaveLayer(ctx, inv)
		if err != nil {
			return err
		}
		fresh, err := tx.UnmatchedPackages(ctx, []int64{layer}, "")
		if err != nil {
			return err
		}
		if img.ID, err = tx.SaveImage(ctx, img, []int64{layer}, nil); err != nil {
			return err
		}
		for id := range fresh {
			found.PackageID = id
			if _, err := tx.ReplaceFindings(ctx, found); err != nil {
				return err
			}
		}
		return tx.CountImage(ctx, img.ID, "", 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = d.Read(ctx, func(tx *db.Tx) error {
		_, err := tx.FindingsOfImage(ctx, img)
		return err
	})
	if gatehouse.CodeOf(err) != gatehouse.CodeTooLarge || !strings.Contains(err.Error(), "findings") {
		t.Errorf("got %v", err)
	}
}

func TestPruneDecisions(t *testing.T) {
	ctx := context.Background()
	d := dbtest.At(t, t.TempDir(), db.Options{})
	defer d.Close()
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	prune := func(before time.Time, max int) (left []int) {
		t.Helper()
		err := d.Write(ctx, func(tx *db.Tx) error {
			if err := tx.PruneDecisions(ctx, before, max); err != nil {
				return err
			}
			for n := 1; n <= 10; n++ {
				if _, err := tx.Decision(ctx, fmt.Sprint(n)); err == nil {
					left = append(left, n)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	err := d.Write(ctx, func(tx *db.Tx) error {
		for n := 1; n <= 10; n++ {
			if err := tx.SaveDecision(ctx, gatehouse.Decision{ID: fmt.Sprint(n), At: day(n)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := prune(day(1), 100); len(got) != 10 {
		t.Errorf("nothing is old and few are kept: left %v", got)
	}
	if got := prune(day(4), 100); len(got) != 7 || got[0] != 4 {
		t.Errorf("before the fourth: left %v", got)
	}
	if got := prune(day(1), 3); len(got) != 3 || got[0] != 8 {
		t.Errorf("at most three: left %v", got)
	}
}
