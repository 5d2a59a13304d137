package db_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// world is a naive model of images, layers, sets and findings: what the counts
// must add up to, computed by going through everything.
type world struct {
	t      *testing.T
	r      *rand.Rand
	db     *db.DB
	layers []gatehouse.LayerInventory
	ids    []int64
	images []modelImage
	wrong  map[place][]gatehouse.Finding // by package and space
}

type place struct{ name, space string }

type modelImage struct {
	digest gatehouse.Digest
	space  string
	layers []int
	hidden []db.HiddenSet
}

func (w *world) pkg(i int) gatehouse.Package {
	if i%2 == 0 {
		return gatehouse.Package{Type: "deb", Name: fmt.Sprintf("os%d", i), Version: "1"}
	}
	return gatehouse.Package{Type: "npm", Name: fmt.Sprintf("js%d", i), Version: "1"}
}

func (w *world) space(p gatehouse.Package, image string) string {
	if p.OS() {
		return image
	}
	return ""
}

func (w *world) addLayer() {
	inv := gatehouse.LayerInventory{DiffID: w.digest(), Blob: w.digest(), Indexer: "x", Complete: true}
	for s := range 1 + w.r.IntN(4) {
		set := gatehouse.PackageSet{Path: fmt.Sprintf("path%d", s), Extractor: "e"}
		parity := w.r.IntN(2) // a set is all OS or all language
		for range w.r.IntN(4) {
			set.Packages = append(set.Packages, w.pkg(w.r.IntN(6)*2+parity))
		}
		inv.Sets = append(inv.Sets, set)
	}
	w.write(func(tx *db.Tx) error {
		id, err := tx.SaveLayer(context.Background(), inv)
		w.ids = append(w.ids, id)
		return err
	})
	w.layers = append(w.layers, inv)
}

func (w *world) addImage() {
	ctx := context.Background()
	img := modelImage{digest: w.digest(), space: []string{"Debian:11", "Debian:12", ""}[w.r.IntN(3)]}
	var ids []int64
	for range 1 + w.r.IntN(4) {
		l := w.r.IntN(len(w.layers))
		for s := range w.layers[l].Sets {
			if w.r.IntN(3) == 0 {
				img.hidden = append(img.hidden, db.HiddenSet{Layer: len(img.layers), Set: s})
			}
		}
		img.layers, ids = append(img.layers, l), append(ids, w.ids[l])
	}
	w.write(func(tx *db.Tx) error {
		fresh, err := tx.UnmatchedPackages(ctx, ids, img.space)
		if err != nil {
			return err
		}
		row, err := tx.SaveImage(ctx, db.Image{Digest: img.digest, OSSpace: img.space, Config: []byte("{}")}, ids, img.hidden)
		if err != nil {
			return err
		}
		for id, p := range fresh {
			space := w.space(p, img.space)
			if p.OS() && space == "" {
				continue
			}
			if err := tx.NamePackage(ctx, id, space, db.Name{Space: "in " + space, Name: p.Name}); err != nil {
				return err
			}
			if _, err := tx.ReplaceFindings(ctx, db.PackageFindings{PackageID: id, OSSpace: space, Findings: w.wrong[place{p.Name, space}]}); err != nil {
				return err
			}
		}
		return tx.CountImage(ctx, row, img.space, 1)
	})
	w.images = append(w.images, img)
}

// feed changes the findings of some packages, as a new advisory would.
func (w *world) feed() {
	ctx := context.Background()
	w.write(func(tx *db.Tx) error {
		for range 1 + w.r.IntN(3) {
			p := w.pkg(w.r.IntN(12))
			space := w.space(p, []string{"Debian:11", "Debian:12"}[w.r.IntN(2)])
			var fs []gatehouse.Finding
			for v := range w.r.IntN(3) {
				f := gatehouse.Finding{ID: fmt.Sprintf("CVE-%d", v), Package: p, Severity: gatehouse.Severity(w.r.IntN(6))}
				if w.r.IntN(2) == 0 {
					f.FixedVersion = "2"
				}
				fs = append(fs, f)
			}
			w.wrong[place{p.Name, space}] = fs
			named, err := tx.PackagesNamed(ctx, db.Name{Space: "in " + space, Name: p.Name})
			if err != nil {
				return err
			}
			for _, n := range named {
				if _, err := tx.ReplaceFindings(ctx, db.PackageFindings{PackageID: n.ID, OSSpace: space, Findings: fs}); err != nil {
					return err
				}
			}
		}
		_, err := tx.Recount(ctx, 2)
		return err
	})
}

func (w *world) check(step int) {
	w.t.Helper()
	ctx := context.Background()
	err := w.db.Read(ctx, func(tx *db.Tx) error {
		for i, m := range w.images {
			img, ok, err := tx.ImageByDigest(ctx, m.digest)
			if err != nil || !ok {
				return fmt.Errorf("image %d: %v, %v", i, ok, err)
			}
			var want db.Counts
			visible := 0
			for at, l := range m.layers {
				for s, set := range w.layers[l].Sets {
					if hides(m.hidden, at, s) {
						continue
					}
					seen := map[string]bool{} // a set holds a package once
					for _, p := range set.Packages {
						if seen[p.Name] {
							continue
						}
						seen[p.Name] = true
						if p.OS() && m.space == "" {
							continue // nothing is known of no distribution
						}
						for _, f := range w.wrong[place{p.Name, w.space(p, m.space)}] {
							visible++
							want.All[f.Severity]++
							if f.Fixable() {
								want.Fixable[f.Severity]++
							}
						}
					}
				}
			}
			if diff := cmp.Diff(want, img.Counts); diff != "" {
				w.t.Fatalf("step %d, image %d: counts (-want +got):\n%s", step, i, diff)
			}
			found, err := tx.FindingsOfImage(ctx, img)
			if err != nil {
				return err
			}
			if len(found) != visible {
				w.t.Fatalf("step %d, image %d: %d findings listed, want %d", step, i, len(found), visible)
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func hides(hidden []db.HiddenSet, layer, set int) bool {
	for _, h := range hidden {
		if h.Layer == layer && h.Set == set {
			return true
		}
	}
	return false
}

func (w *world) digest() gatehouse.Digest {
	return gatehouse.DigestOf(fmt.Appendf(nil, "%d", w.r.Uint64()))
}

func (w *world) write(f func(*db.Tx) error) {
	w.t.Helper()
	if err := w.db.Write(context.Background(), f); err != nil {
		w.t.Fatal(err)
	}
}

// TestCountsAddUp drives random pushes and feed changes and compares every
// image's sums with the naive model after each step.
func TestCountsAddUp(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), db.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { d.Close() })
			w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), db: d, wrong: map[place][]gatehouse.Finding{}}
			w.addLayer()
			for step := range 40 {
				switch w.r.IntN(3) {
				case 0:
					w.addLayer()
				case 1:
					w.addImage()
				case 2:
					w.feed()
				}
				w.check(step)
			}
			if len(w.images) == 0 {
				t.Fatal("no image was ever pushed")
			}
		})
	}
}

// TestCountsFollowTheWorkList: what one image costs does not depend on how many
// there are. Only the work list, and what was made of it, is read from end to
// end.
func TestCountsFollowTheWorkList(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "gatehouse.db"))
	plans, err := db.Plans(t.Context(), d, func(tx *db.Tx) {
		if err := tx.CountImage(t.Context(), 1, "debian:12", 1); err != nil {
			t.Error(err)
		}
		if _, err := tx.Recount(t.Context(), 1); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(plans) < 9 {
		t.Fatalf("only %d statements were planned", len(plans))
	}
	list := regexp.MustCompile(`^SCAN (r|r1|r2|rl|rs|n|x|a|h|rematch_[a-z]+|CONSTANT ROW)\b`)
	for query, plan := range plans {
		for _, step := range plan {
			if strings.HasPrefix(step, "SCAN") && !list.MatchString(step) || strings.HasPrefix(step, "SEARCH") && strings.Contains(step, "AUTOMATIC") && !regexp.MustCompile(`^SEARCH [ah] `).MatchString(step) {
				t.Errorf("%s\n  %s", query, strings.Join(plan, "\n  "))
				break
			}
		}
	}
}
