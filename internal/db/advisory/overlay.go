package advisory

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// What is known of CVEs besides: one row per table, all of it packed, because it
// is replaced as a whole and read as a whole. EPSS has some 300,000 lines, which
// take 5 MiB of an open file's memory once they are asked for.

const (
	overlayKEV  = "kev"
	overlayEPSS = "epss"
	// epssUnit is the precision that FIRST publishes.
	epssUnit = 1e5
	// daysMax is the last day that JSON can name, 9999-12-31.
	daysMax = 2932896
)

// cve is a CVE id as a number: year and running number.
type cve uint64

const cveMax = 1 << 54 // more than year 9999

func parseCVE(id string) (cve, bool) {
	rest, ok := strings.CutPrefix(id, "CVE-")
	year, number, cut := strings.Cut(rest, "-")
	y, errYear := strconv.ParseUint(year, 10, 16)
	n, errNumber := strconv.ParseUint(number, 10, 40)
	if !ok || !cut || len(year) != 4 || len(number) < 4 || errYear != nil || errNumber != nil || strings.ContainsAny(rest, "+") {
		return 0, false
	}
	return cve(y<<40 | n), true
}

// overlays are the tables of one file, read at the first question.
type overlays struct {
	mu   sync.Mutex
	read bool // guarded by mu; what follows never changes once it is set
	kev  map[cve]gatehouse.KEV
	cves []cve // sorted; of epss
	epss []gatehouse.EPSS
}

// overlay replaces the tables that p brings. Lines whose id is no CVE's are left
// out.
func (b *builder) overlay(p gatehouse.Publication) error {
	for _, t := range []struct {
		name string
		rows int
		pack func() []byte
	}{
		{overlayKEV, len(p.KEV), func() []byte { return packTable(p.KEV, kevRow) }},
		{overlayEPSS, len(p.EPSS), func() []byte { return packTable(p.EPSS, epssRow) }},
	} {
		if t.name == overlayKEV && p.KEV == nil || t.name == overlayEPSS && p.EPSS == nil {
			continue
		}
		if t.rows == 0 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the feed %s came without any line; the ones before it stay in force", p.Feed)
		}
		raw := t.pack()
		if len(raw) > docBytesMax { // which no reader would take
			return gatehouse.Errorf(gatehouse.CodeTooLarge, "the feed %s has %d lines, which is more than can be kept", p.Feed, t.rows)
		}
		b.feed.state.Records = t.rows
		err := b.exec("INSERT INTO overlay(name, zstd) VALUES($1, $2) ON CONFLICT(name) DO UPDATE SET zstd = excluded.zstd",
			t.name, b.enc.EncodeAll(raw, nil))
		if err != nil {
			return err
		}
	}
	return nil
}

func sortedCVEs[V any](table map[string]V) ([]cve, map[cve]V) {
	by := make(map[cve]V, len(table))
	for id, v := range table {
		if c, ok := parseCVE(id); ok {
			by[c] = v
		}
	}
	return slices.Sorted(maps.Keys(by)), by
}

// packTable writes for each CVE, ascending: the difference to the one before, then the
// numbers of its row.
func packTable[V any](table map[string]V, row func(V) []uint64) []byte {
	var b []byte
	var last cve
	list, by := sortedCVEs(table)
	for _, c := range list {
		b = binary.AppendUvarint(b, uint64(c-last))
		for _, n := range row(by[c]) {
			b = binary.AppendUvarint(b, n)
		}
		last = c
	}
	return b
}

// kevRow is the days since 1970 of the addition and of what is due (0: nothing
// is), ransomware.
func kevRow(k gatehouse.KEV) []uint64 {
	ransomware := uint64(0)
	if k.Ransomware {
		ransomware = 1
	}
	return []uint64{days(k.Added), days(k.Due), ransomware}
}

func epssRow(e gatehouse.EPSS) []uint64 { return []uint64{units(e.Score), units(e.Percentile)} }

func days(t time.Time) uint64 { return uint64(min(daysMax, max(0, t.Unix()/86400))) }

func day(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n)*86400, 0).UTC()
}

// units keeps a probability within what one can be, whatever the feed says.
func units(p float64) uint64 {
	if !(p > 0) {
		return 0
	}
	return uint64(math.Round(min(p, 1) * epssUnit))
}

// numbersIn reads rows of numbers, each up to its own maximum.
func numbersIn(b []byte, maxima []uint64, yield func([]uint64)) error {
	row := make([]uint64, len(maxima))
	for len(b) > 0 {
		for i := range row {
			v, size := binary.Uvarint(b)
			if size <= 0 || v > maxima[i] {
				return (&reader{bad: true}).err("table")
			}
			row[i], b = v, b[size:]
		}
		yield(row)
	}
	return nil
}

// Enrich says of each vulnerability what is known of its CVE: whether it is
// exploited, and how likely it is to be. What findings had before is replaced.
// Errors: CodeInvalid for a damaged file.
func (f *File) Enrich(ctx context.Context, findings []gatehouse.Finding) error {
	if err := f.readOverlays(ctx); err != nil {
		return err
	}
	o := &f.over
	for i := range findings {
		one := &findings[i]
		one.EPSS, one.KEV = nil, nil
		c, ok := cveOf(one)
		if !ok {
			continue
		}
		if k, ok := o.kev[c]; ok {
			one.KEV = &k
		}
		if at, ok := slices.BinarySearch(o.cves, c); ok {
			e := o.epss[at]
			one.EPSS = &e
		}
	}
	return nil
}

// cveOf returns the CVE that a finding is about: its id, else the first name
// that is one.
func cveOf(f *gatehouse.Finding) (cve, bool) {
	if c, ok := parseCVE(f.ID); ok {
		return c, true
	}
	for _, n := range f.Aliases {
		if c, ok := parseCVE(n); ok {
			return c, true
		}
	}
	return 0, false
}

// readOverlays unpacks the tables once. An error is tried again.
func (f *File) readOverlays(ctx context.Context) error {
	o := &f.over
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.read || f.format == formatNoFeeds {
		return nil
	}
	kev := map[cve]gatehouse.KEV{}
	var cves []cve
	var epss []gatehouse.EPSS
	last := cve(0)
	err := f.readOverlay(ctx, overlayKEV, []uint64{cveMax, daysMax, daysMax, 1}, func(row []uint64) {
		last += cve(row[0])
		kev[last] = gatehouse.KEV{Added: day(row[1]), Due: day(row[2]), Ransomware: row[3] == 1}
	})
	if err != nil {
		return err
	}
	last = 0
	err = f.readOverlay(ctx, overlayEPSS, []uint64{cveMax, epssUnit, epssUnit}, func(row []uint64) {
		last += cve(row[0])
		cves = append(cves, last)
		epss = append(epss, gatehouse.EPSS{Score: float64(row[1]) / epssUnit, Percentile: float64(row[2]) / epssUnit})
	})
	if err != nil {
		return err
	}
	o.kev, o.cves, o.epss, o.read = kev, cves, epss, true
	return nil
}

func (f *File) readOverlay(ctx context.Context, name string, maxima []uint64, yield func([]uint64)) error {
	var packed []byte
	err := f.db.QueryRowContext(ctx, "SELECT zstd FROM overlay WHERE name = $1", name).Scan(&packed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	raw, err := f.dec.DecodeAll(packed, nil)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the advisory file is damaged (table %s): %w", name, err)
	}
	return numbersIn(raw, maxima, yield)
}
