package advisory

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/klauspost/compress/zstd"
)

// The small values that matching reads by the thousand (core, entry, names) are
// written as length-prefixed strings; JSON would cost more than all else.

// docBytesMax bounds one unpacked document; a record's texts are cut to far
// less before they get here.
const docBytesMax = 16 << 20

// dictionary is what most documents have in common. It is part of the format:
// changing a byte needs a new formatVersion.
const dictionary = `{"id":"GHSA-","aliases":["CVE-2019-","GHSA-"],"upstream":["CVE-2020-","CVE-2021-","CVE-2022-","CVE-2023-","CVE-2024-","CVE-2025-","CVE-2026-"],"related":["CVE-` +
	`"source":"osv","summary":"Important: security update - security update vulnerability in Denial of Service Cross-site Scripting Prototype Pollution allows attackers to ","details":"` +
	`"severity":"UNKNOWN","severity":"LOW","severity":"CRITICAL","severitySource":"ghsa","severity":"MEDIUM","severitySource":"almalinux","severity":"HIGH","severitySource":"almalinux",` +
	`"cvss":[{"version":"3.1","vector":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H","score":9.8,"source":"` +
	`"references":["https://www.debian.org/security/20","https://nvd.nist.gov/vuln/detail/CVE-20","https://github.com/advisories/GHSA-","https://access.redhat.com/errata/RHSA-202","https://errata.almalinux.org/8/ALSA-202",".html"],` +
	`"published":"2024-01-01T00:00:00Z","modified":"2026-08-21T00:00:00Z","affected":null}`

const dictionaryID = 1

func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithEncoderCRC(false), zstd.WithEncoderDictRaw(dictionaryID, []byte(dictionary)))
}

func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(docBytesMax),
		zstd.WithDecoderDictRaw(dictionaryID, []byte(dictionary)))
}

// decodeDoc unpacks all of a record but its Affected entries.
func decodeDoc(dec *zstd.Decoder, b []byte) (gatehouse.Advisory, error) {
	var a gatehouse.Advisory
	raw, err := dec.DecodeAll(b, nil)
	if err != nil {
		return a, err
	}
	err = json.Unmarshal(raw, &a)
	if a.Feed == "" {
		a.Feed = handFeed
	}
	return a, err
}

type writer []byte

func (w *writer) number(n int)    { *w = binary.AppendUvarint(*w, uint64(n)) }
func (w *writer) text(s string)   { w.number(len(s)); *w = append(*w, s...) }
func (w *writer) list(l []string) { w.number(len(l)); w.each(l) }
func (w *writer) each(l []string) {
	for _, s := range l {
		w.text(s)
	}
}

// reader reads what writer wrote; after the first thing amiss, bad is set and
// all further reads give zero values.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number() int {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > 1<<31 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}

func (r *reader) text() string {
	n := r.number()
	if n > len(r.b) {
		r.bad = true
	}
	if r.bad {
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// count reads a length and bounds it by the bytes left, of which each element
// needs at least one.
func (r *reader) count() int {
	n := r.number()
	if n > len(r.b) {
		r.bad = true
		return 0
	}
	return n
}

func (r *reader) list() []string {
	n := r.count()
	if n == 0 {
		return nil
	}
	out := make([]string, 0, min(n, 16))
	for i := 0; i < n && !r.bad; i++ {
		out = append(out, r.text())
	}
	return out
}

func (r *reader) err(what string) error {
	if !r.bad && len(r.b) == 0 {
		return nil
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the advisory file is damaged (%s)", what).
		WithHint("import or download it again")
}

// encodeCore packs what names the flaw.
func encodeCore(a gatehouse.Advisory) []byte {
	var w writer
	w.list(a.Aliases)
	w.list(a.Upstream)
	w.list(a.Related)
	w.text(a.Source)
	withdrawn := ""
	if !a.Withdrawn.IsZero() {
		withdrawn = a.Withdrawn.UTC().Format(time.RFC3339)
	}
	w.text(withdrawn)
	return w
}

func decodeCore(id string, b []byte) (gatehouse.Advisory, error) {
	r := reader{b: b}
	a := gatehouse.Advisory{ID: id, Aliases: r.list(), Upstream: r.list(), Related: r.list(), Source: r.text()}
	if s := r.text(); s != "" {
		t, err := time.Parse(time.RFC3339, s)
		r.bad = r.bad || err != nil
		a.Withdrawn = t
	}
	return a, r.err("record " + id)
}

// Kinds of events in an entry.
const (
	eventIntroduced = iota
	eventFixed
	eventLastAffected
	eventLimit
)

// encodeEntry packs the Affected entries of one record for one name. Where one
// is rated or limited to architectures by itself, a 0 goes before all, and each
// has that too; format 1 knew neither.
func encodeEntry(list []gatehouse.Affected) []byte {
	var w writer
	more := slices.ContainsFunc(list, func(a gatehouse.Affected) bool { return a.Severity != 0 || len(a.Arches) > 0 })
	if more {
		w.number(0)
	}
	w.number(len(list))
	for _, a := range list {
		if more {
			w.number(int(a.Severity))
			w.list(a.Arches)
		}
		w.text(a.Status)
		w.text(a.Informational)
		w.list(a.Modules)
		w.list(a.Versions)
		w.number(len(a.Ranges))
		for _, r := range a.Ranges {
			w.text(r.Type)
			w.number(len(r.Events))
			for _, e := range r.Events {
				switch {
				case e.Introduced != "":
					w.number(eventIntroduced)
				case e.Fixed != "":
					w.number(eventFixed)
				case e.LastAffected != "":
					w.number(eventLastAffected)
				default:
					w.number(eventLimit)
				}
				w.text(e.Introduced + e.Fixed + e.LastAffected + e.Limit)
			}
		}
	}
	return w
}

func decodeEntry(n Name, b []byte) ([]gatehouse.Affected, error) {
	r := reader{b: b}
	var out []gatehouse.Affected
	count := r.count()
	more := count == 0 && len(r.b) > 0
	if more {
		count = r.count()
	}
	// Slices grow with what is really there, whatever a damaged file counts.
	for i := count; i > 0 && !r.bad; i-- {
		a := gatehouse.Affected{Space: n.Space, Name: n.Name}
		if more {
			a.Severity, a.Arches = r.severity(), r.list()
		}
		a.Status, a.Informational = r.text(), r.text()
		a.Modules, a.Versions = r.list(), r.list()
		for j := r.count(); j > 0 && !r.bad; j-- {
			one := gatehouse.Range{Type: r.text()}
			for k := r.count(); k > 0 && !r.bad; k-- {
				one.Events = append(one.Events, r.event())
			}
			a.Ranges = append(a.Ranges, one)
		}
		out = append(out, a)
	}
	return out, r.err(fmt.Sprintf("%s %s", n.Space, n.Name))
}

func (r *reader) severity() gatehouse.Severity {
	n := r.number()
	if n > int(gatehouse.SeverityCritical) {
		r.bad = true
		return 0
	}
	return gatehouse.Severity(n)
}

func (r *reader) event() gatehouse.RangeEvent {
	kind, v := r.number(), r.text()
	switch kind {
	case eventIntroduced:
		return gatehouse.RangeEvent{Introduced: v}
	case eventFixed:
		return gatehouse.RangeEvent{Fixed: v}
	case eventLastAffected:
		return gatehouse.RangeEvent{LastAffected: v}
	case eventLimit:
		return gatehouse.RangeEvent{Limit: v}
	}
	r.bad = true
	return gatehouse.RangeEvent{}
}

// encodeNumbers packs ascending numbers as differences.
func encodeNumbers(list []int64) []byte {
	b := []byte{} // not nil, which a database would take for NULL
	last := int64(0)
	for _, n := range list {
		b = binary.AppendUvarint(b, uint64(n-last))
		last = n
	}
	return b
}

func decodeNumbers(b []byte) ([]int64, error) {
	var out []int64
	last := int64(0)
	for len(b) > 0 {
		d, size := binary.Uvarint(b)
		if size <= 0 || d > 1<<40 {
			return nil, (&reader{bad: true}).err("names")
		}
		last += int64(d)
		out, b = append(out, last), b[size:]
	}
	return out, nil
}

// ratingHash covers what of a record may change the severity or the text of a
// finding that another record caused.
func ratingHash(a gatehouse.Advisory) int64 {
	if a.Severity == gatehouse.SeverityUnknown && len(a.CVSS) == 0 && a.Summary == "" && a.Withdrawn.IsZero() {
		return 0
	}
	var w writer
	w.number(int(a.Severity))
	w.text(a.SeveritySource)
	if !a.Withdrawn.IsZero() {
		w.text("withdrawn")
	}
	for _, c := range a.CVSS {
		w.text(c.Source)
		w.text(c.Vector)
	}
	if a.Summary != "" {
		w.number(1) // its wording does not matter to anyone's verdict
	}
	return hash64(w)
}

// entryHash covers all that matters to matching one name against one record. Two
// feeds that have the same record have two hashes, which therefore do not undo
// each other in a name's.
func entryHash(feed, id string, core, entry []byte, rating int64) int64 {
	var w writer
	if feed != handFeed {
		w.text(feed)
	}
	w.text(id)
	w.text(string(core))
	w = binary.LittleEndian.AppendUint64(w, uint64(rating))
	return hash64(append(w, entry...))
}

func hash64(b []byte) int64 {
	sum := sha256.Sum256(b)
	return int64(binary.LittleEndian.Uint64(sum[:8]))
}
