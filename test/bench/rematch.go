package main

import (
	"context"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// The store and the feed of the full match. They are made up, with names and
// versions spread as registries have them: a few packages in very many
// versions, very many in a few.
const (
	rematchImages     = 100_000
	rematchPackages   = 200_000
	rematchAdvisories = 300_000
	rematchLimit      = 10 * time.Second
)

// measureRematch matches everything twice: by the first advisories there are,
// when every finding is new, and by a feed in which every record was touched and
// one in a hundred says something else.
func measureRematch(ctx context.Context, b *bench) ([]row, error) {
	dir := filepath.Join(b.work, "rematch")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := db.OpenSQLite(ctx, filepath.Join(dir, "meta.db"), db.Options{})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	w := newWorld()
	start := time.Now()
	if err := w.fill(ctx, d); err != nil {
		return nil, err
	}
	fmt.Fprintf(b.log, "    filled %d images, %d package versions of %d names in %.0f s\n", rematchImages, w.versions, len(w.names), time.Since(start).Seconds())
	adv, stop, err := workers(ctx, d, dir)
	if err != nil {
		return nil, err
	}
	defer stop()
	var rows []row
	for i, what := range []string{"the first advisories", "every advisory touched, 1 % of them changed"} {
		took, err := w.publish(ctx, b, adv, i)
		if err != nil {
			return rows, err
		}
		flagged, err := countFlagged(ctx, d)
		if err != nil {
			return rows, err
		}
		_, peak, err := memory(os.Getpid())
		if err != nil {
			return rows, err
		}
		rows = append(rows, row{
			what: fmt.Sprintf("full match of %d images (%d package versions, %d advisories), %s: commit until every verdict answers anew",
				rematchImages, w.versions, rematchAdvisories, what),
			measured: fmt.Sprintf("%.2f s", took.Seconds()), limit: "< " + rematchLimit.String(), missed: took >= rematchLimit,
		}, row{what: "— images with a critical finding; peak memory so far", measured: fmt.Sprintf("%d; %d MiB", flagged, peak>>20)})
	}
	return rows, nil
}

func (w *world) publish(ctx context.Context, b *bench, adv *pipeline.Advisories, round int) (time.Duration, error) {
	start := time.Now()
	gen, err := adv.Import(ctx, gatehouse.System("bench"), advisory.Info{Source: fmt.Sprintf("round %d", round), BuiltAt: time.Now()}, w.advisories(round))
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(b.log, "    imported in %.0f s\n", time.Since(start).Seconds())
	runtime.GC() // the import's own garbage is not the match's
	committed := time.Now()
	_, err = adv.InForce(ctx, gen)
	return time.Since(committed), err
}

// countFlagged makes sure that the match did something.
func countFlagged(ctx context.Context, d *db.DB) (int64, error) {
	var all, flagged int64
	err := d.Read(ctx, func(tx *db.Tx) (err error) {
		all, flagged, err = tx.ImageCount(ctx, gatehouse.SeverityCritical)
		return err
	})
	if err == nil && (all != rematchImages || flagged == 0) {
		err = fmt.Errorf("%d of %d images are flagged", flagged, all)
	}
	return flagged, err
}

// worldName is one package name and how many versions of it are stored.
type worldName struct {
	kind     *worldKind
	name     string
	versions int
}

// worldKind is an ecosystem of the world.
type worldKind struct {
	space  string // that its advisories are published in
	pkg    string // purl type
	share  int    // of package versions, in percent
	format string // of a version
	distro int    // index of the distribution, -1 for languages
}

var worldKinds = []worldKind{
	{"Debian:12", "deb", 15, "1.%d.0-1", 0},
	{"AlmaLinux:9", "rpm", 7, "1.%d.0-1.el9", 1},
	{"npm", "npm", 38, "1.%d.0", -1},
	{"Maven", "maven", 15, "1.%d.0", -1},
	{"PyPI", "pypi", 12, "1.%d.0", -1},
	{"Go", "golang", 13, "v1.%d.0", -1},
}

var worldDistros = []gatehouse.Distro{{ID: "debian", VersionID: "12"}, {ID: "almalinux", VersionID: "9.4"}}

type world struct {
	names    []worldName
	popular  []worldName // the tenth with the most versions
	versions int
	// Package versions by the layers that hold them: of base images per
	// distribution, runtimes, applications.
	os    [2][]gatehouse.Package
	langs []gatehouse.Package
}

// newWorld draws package versions: that of rank r has about 1/r as many as the
// first of its ecosystem.
func newWorld() *world {
	w := &world{}
	random := rand.New(rand.NewPCG(4, 2))
	for k := range worldKinds {
		kind, first := &worldKinds[k], len(w.names)
		want := rematchPackages * kind.share / 100
		for rank := 1; want > 0; rank++ {
			n := min(want, max(1, 1+random.IntN(8), 300*20/(rank+19)))
			want -= n
			name := fmt.Sprintf("%s-package-%d", kind.pkg, rank)
			if kind.pkg == "maven" {
				name = fmt.Sprintf("org.example.g%d:artifact-%d", rank%500, rank)
			}
			w.names = append(w.names, worldName{kind, name, n})
			for v := range n {
				p := gatehouse.Package{Type: kind.pkg, Name: name, Version: fmt.Sprintf(kind.format, v)}
				w.versions++
				if kind.distro < 0 {
					w.langs = append(w.langs, p)
					continue
				}
				if p.Type == "deb" && random.IntN(2) == 0 { // half of the binary packages are called like their source
					p.Source, p.Name = p.Name, p.Name+"-lib"
				}
				w.os[kind.distro] = append(w.os[kind.distro], p)
			}
		}
		w.popular = append(w.popular, w.names[first:first+(len(w.names)-first)/10]...)
	}
	for _, list := range [][]gatehouse.Package{w.os[0], w.os[1], w.langs} {
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	return w
}

// advisories is the feed: three in five are about names that are stored, and
// most of those repair an old version; one in five only rates a CVE that a
// distribution has named. The second round touches every record.
func (w *world) advisories(round int) iter.Seq2[gatehouse.Advisory, error] {
	return func(yield func(gatehouse.Advisory, error) bool) {
		random := rand.New(rand.NewPCG(7, 7))
		for i := range rematchAdvisories {
			if !yield(w.advisory(random, i, round), nil) {
				return
			}
		}
	}
}

const (
	worldVector  = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
	worldDetails = "A flaw in the parser of this package lets whoever sends it a crafted document read memory that is not theirs. " +
		"Applications that parse what strangers send are affected in their default configuration; others are not known to be. " +
		"The repaired version checks the length before it copies. Until it is installed, refusing documents of more than a megabyte helps.\n"
)

func (w *world) advisory(random *rand.Rand, i, round int) gatehouse.Advisory {
	cve := fmt.Sprintf("CVE-2026-%06d", i)
	a := gatehouse.Advisory{
		Source: "bench", Summary: fmt.Sprintf("Out-of-bounds read number %d", i), Details: worldDetails + cve,
		References: []string{"https://example.test/advisories/" + cve, "https://example.test/commit/" + cve},
		Published:  time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC), Modified: time.Date(2026, 2, 1+round, 0, 0, 0, 0, time.UTC),
	}
	rated := func(source string) {
		a.Severity = gatehouse.Severity(2 + random.IntN(4))
		a.SeveritySource = source
		a.CVSS = []gatehouse.CVSS{{Version: "3.1", Vector: worldVector, Score: 9.8, Source: source}}
	}
	// Half of them are about what is widely used.
	n := w.names[random.IntN(len(w.names))]
	if popular := w.popular[random.IntN(len(w.popular))]; i%2 == 0 {
		n = popular
	}
	fraction, stored := random.Float64(), random.IntN(5) != 0
	switch {
	case i%5 == 4: // what the record before is rated
		a.ID = fmt.Sprintf("CVE-2026-%06d", i-1)
		rated("nvd")
		return a
	case n.kind.distro >= 0:
		a.ID, a.Upstream = []string{"DEBIAN-" + cve, fmt.Sprintf("ALSA-2026:%d", i)}[n.kind.distro], []string{cve}
	default:
		a.ID, a.Aliases = fmt.Sprintf("GHSA-%04d-%04d-%04d", i/10000, i%10000, i%7), []string{cve}
		rated("ghsa")
	}
	name := n.name
	if !stored {
		name = fmt.Sprintf("nobody-has-%d", i%60_000)
	}
	// Mostly versions that few still run. The mean of x^20 is 1/21, which gives a
	// package version somewhat more than one flaw, as images have that nobody
	// rebuilds.
	repaired := int(float64(n.versions) * math.Pow(fraction, 20))
	if round > 0 && i%100 == 0 {
		repaired++
	}
	e := gatehouse.Affected{Space: n.kind.space, Name: name, Ranges: []gatehouse.Range{{
		Type: "ECOSYSTEM", Events: []gatehouse.RangeEvent{{Introduced: "0"}, {Fixed: fmt.Sprintf(n.kind.format, repaired)}},
	}}}
	if round > 0 {
		e.Versions = []string{"0.0.0-touched"}
	}
	a.Affected = []gatehouse.Affected{e}
	return a
}

// fill stores images: each of one of 100 base, 1,000 runtime and 2,000
// application layers.
func (w *world) fill(ctx context.Context, d *db.DB) error {
	bases := [2]int{70, 30}
	var ids [3][]int64
	for distro, n := range bases {
		more, err := saveLayers(ctx, d, fmt.Sprintf("base-%d", distro), "var/lib/packages", n, w.os[distro])
		if err != nil {
			return err
		}
		ids[0] = append(ids[0], more...)
	}
	half := len(w.langs) / 3
	var err error
	if ids[1], err = saveLayers(ctx, d, "runtime", "usr/lib/lock.json", 1_000, w.langs[:half]); err != nil {
		return err
	}
	if ids[2], err = saveLayers(ctx, d, "app", "app/lock.json", 2_000, w.langs[half:]); err != nil {
		return err
	}
	const batch = 500
	for from := 0; from < rematchImages; from += batch {
		err := d.Write(ctx, func(tx *db.Tx) error {
			for i := from; i < from+batch; i++ {
				if err := saveWorldImage(ctx, tx, i, ids, bases[0]); err != nil {
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

// saveLayers spreads packages over n layers.
func saveLayers(ctx context.Context, d *db.DB, kind, path string, n int, packages []gatehouse.Package) (ids []int64, err error) {
	for i := range n {
		inv := gatehouse.LayerInventory{
			DiffID: gatehouse.DigestOf(fmt.Appendf(nil, "%s/%d", kind, i)), Blob: gatehouse.DigestOf(fmt.Appendf(nil, "blob %s/%d", kind, i)),
			Indexer: "bench", Complete: true,
			Sets: []gatehouse.PackageSet{{Path: path, Extractor: "bench", Packages: packages[len(packages)*i/n : len(packages)*(i+1)/n]}},
		}
		err := d.Write(ctx, func(tx *db.Tx) error {
			id, err := tx.SaveLayer(ctx, inv)
			ids = append(ids, id)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func saveWorldImage(ctx context.Context, tx *db.Tx, i int, layers [3][]int64, debian int) error {
	var ids []int64
	for _, of := range layers {
		ids = append(ids, of[i%len(of)])
	}
	distro := worldDistros[0]
	if i%len(layers[0]) >= debian {
		distro = worldDistros[1]
	}
	img := db.Image{
		Digest: gatehouse.DigestOf(fmt.Appendf(nil, "image %d", i)), Indexer: "bench", Distro: distro, OSSpace: match.Space(distro),
		Spaces: []string{match.Space(distro), "npm"}, Config: []byte("{}"), Complete: true, Reasons: []string{},
	}
	// Once every layer has been seen in its distribution, an image brings nothing
	// new, and its sums are zero like theirs.
	var fresh map[int64]gatehouse.Package
	if seen := i >= 2*len(layers[2]); !seen {
		var err error
		if fresh, err = tx.UnmatchedPackages(ctx, ids, img.OSSpace); err != nil {
			return err
		}
	}
	row, err := tx.SaveImage(ctx, img, ids, nil)
	if err != nil {
		return err
	}
	for id, p := range fresh {
		osSpace := ""
		if p.OS() {
			osSpace = img.OSSpace
		}
		for _, key := range match.Keys(p, distro) {
			if err := tx.NamePackage(ctx, id, osSpace, db.Name(key)); err != nil {
				return err
			}
		}
	}
	if i >= 2*len(layers[2]) {
		return nil
	}
	return tx.CountImage(ctx, row, img.OSSpace, 0)
}
