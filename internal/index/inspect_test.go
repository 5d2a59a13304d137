package index_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// watching is an inspector that puts files together again.
type watching struct {
	entries []string
	files   map[string][]byte
	wants   func(index.Entry) bool
	more    func(path string, sofar int) bool
	report  *index.Report
	path    string
}

func (w *watching) Name() string { return "watching" }
func (w *watching) Version() int { return 1 }

func (w *watching) Inspect(r *index.Report) index.Inspection {
	w.report = r
	return w
}

func (w *watching) Entry(e index.Entry) bool {
	w.entries = append(w.entries, fmt.Sprintf("%v %s %d", e.Mode, e.Path, e.Size))
	w.path = e.Path
	return w.wants == nil || w.wants(e)
}

func (w *watching) Piece(p index.Piece) bool {
	had := w.files[w.path]
	if p.Seen > len(had) || !bytes.Equal(had[len(had)-p.Seen:], p.Bytes[:p.Seen]) || p.Seen < min(len(had), index.PieceOverlap) {
		panic(fmt.Sprintf("%s: piece of %d bytes repeats %d of %d", w.path, len(p.Bytes), p.Seen, len(had)))
	}
	w.files[w.path] = append(had, p.Bytes[p.Seen:]...)
	return w.more == nil || w.more(w.path, len(w.files[w.path]))
}

// TestInspectorSeesEveryByte: in pieces that overlap, whether or not an
// extractor reads the file, and wherever it keeps it.
func TestInspectorSeesEveryByte(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	want := map[string][]byte{}
	var entries []entry
	for _, name := range []string{"data", "usr/bin/program", "usr/bin/script", "lib/apk/db/installed", "large.jar", "small"} {
		body := make([]byte, random.IntN(400_000)+10)
		for i := range body {
			body[i] = byte(random.Uint32())
		}
		if name == "usr/bin/program" {
			copy(body, "\x7fELF")
		}
		want[name] = body
		entries = append(entries, entry{name: name, body: string(body), mode: 0o755})
	}
	entries = append(entries, entry{name: "empty"})
	for _, limits := range []index.Limits{{}, {MemoryMax: 100}, {FileMax: 100}, {BodiesMax: 100}} {
		w := &watching{files: map[string][]byte{}}
		what := index.Packages()
		what.Inspectors = []index.Inspector{w}
		inv, err := index.Layer(t.Context(), bytes.NewReader(gzipped(t, tarOf(t, entries...))), limits, what)
		if err != nil || hasReason(inv.Incomplete, "panicked: usr") {
			t.Fatal(err, inv.Incomplete)
		}
		if hasReason(inv.Incomplete, "watching") {
			t.Error(inv.Incomplete)
		}
		if !maps.EqualFunc(want, w.files, bytes.Equal) {
			t.Errorf("%+v: files differ", limits)
		}
	}
}

// TestInspectorIsToldOfEntries: of all kinds, with their modes.
func TestInspectorIsToldOfEntries(t *testing.T) {
	w := &watching{files: map[string][]byte{}}
	blob := tarOf(t, entry{name: "d/", kind: tar.TypeDir, mode: 0o1777}, entry{name: "d/f", body: "x", mode: 0o4755},
		entry{name: "l", kind: tar.TypeSymlink, link: "d", mode: 0o777}, entry{name: "h", kind: tar.TypeLink, link: "d/f", mode: 0o4755},
		entry{name: "c", kind: tar.TypeChar, mode: 0o600}, entry{name: "p", kind: tar.TypeFifo, mode: 0o600}, entry{name: "d/.wh.x"}, entry{name: "../out", body: "x"})
	if _, err := index.Layer(t.Context(), bytes.NewReader(blob), index.Limits{}, index.Analysis{Inspectors: []index.Inspector{w}}); err != nil {
		t.Fatal(err)
	}
	want := []string{"dtrwxrwxrwx d 0", "urwxr-xr-x d/f 1", "Lrwxrwxrwx l 0", "urwxr-xr-x h -1", "Dcrw------- c 0", "prw------- p 0"}
	if d := cmp.Diff(want, w.entries); d != "" {
		t.Error(d)
	}
}

// TestInspectorMayStop: it is shown no more of a file that it has seen enough
// of, and the next one whole.
func TestInspectorMayStop(t *testing.T) {
	w := &watching{files: map[string][]byte{}, more: func(path string, n int) bool { return path != "a" }}
	blob := tarOf(t, entry{name: "a", body: strings.Repeat("x", 1<<20)}, entry{name: "b", body: strings.Repeat("y", 1<<20)})
	if _, err := index.Layer(t.Context(), bytes.NewReader(blob), index.Limits{}, index.Analysis{Inspectors: []index.Inspector{w}}); err != nil {
		t.Fatal(err)
	}
	if a, b := len(w.files["a"]), len(w.files["b"]); a >= 1<<20 || b != 1<<20 {
		t.Errorf("%d bytes of a, %d of b", a, b)
	}
}

// TestInspectorPanics: one hostile file does not stop the worker, nor the other
// inspectors.
func TestInspectorPanics(t *testing.T) {
	bad := &watching{files: map[string][]byte{}, more: func(path string, _ int) bool {
		if path == "bad" {
			panic("index out of range")
		}
		return true
	}}
	good := &watching{files: map[string][]byte{}}
	blob := tarOf(t, entry{name: "bad", body: "x"}, entry{name: "next", body: "y"})
	inv, err := index.Layer(t.Context(), bytes.NewReader(blob), index.Limits{}, index.Analysis{Inspectors: []index.Inspector{bad, good}})
	if err != nil || inv.Complete || !hasReason(inv.Incomplete, `"bad": watching: panicked: index out of range`) {
		t.Errorf("%v %q", err, inv.Incomplete)
	}
	if string(bad.files["next"]) != "y" || string(good.files["bad"]) != "x" {
		t.Errorf("%q %q", bad.files, good.files)
	}
}

// TestReportIsBounded: findings, files and their texts.
func TestReportIsBounded(t *testing.T) {
	var entries []entry
	for i := range 200 {
		entries = append(entries, entry{name: fmt.Sprintf("f%d.sh", i), body: "t = " + tokenOf(fmt.Sprint("x", i)) + "\n"})
	}
	inv := layerOf(t, index.Limits{FindingsMax: 10, FilesMax: 20}, tarOf(t, entries...))
	if len(inv.Findings) != 10 || len(inv.Files) != 20 || !hasReason(inv.Incomplete, "more than 10 findings") || !hasReason(inv.Incomplete, "more than 20 executables") {
		t.Errorf("%d findings, %d files, %q", len(inv.Findings), len(inv.Files), inv.Incomplete)
	}
	w := &watching{files: map[string][]byte{}}
	w.more = func(string, int) bool {
		long := strings.Repeat("ä\x00", 5000)
		w.report.Finding(gatehouse.Finding{ID: "x", Title: long, Location: &gatehouse.Location{Origin: "file", Excerpt: long}})
		return true
	}
	inv, err := index.Layer(t.Context(), bytes.NewReader(tarOf(t, entry{name: "a", body: "x"})), index.Limits{}, index.Analysis{Inspectors: []index.Inspector{w}})
	if err != nil || len(inv.Findings) != 1 || len(inv.Findings[0].Title) > 1100 || strings.Contains(inv.Findings[0].Location.Excerpt, "\x00") {
		t.Errorf("%v %+v", err, inv.Findings)
	}
}
