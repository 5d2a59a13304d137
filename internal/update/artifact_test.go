package update_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

var about = update.About{
	BuiltAt: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), UpdatedAt: time.Date(2026, 3, 4, 11, 0, 0, 0, time.UTC), Records: 7,
	Feeds: []update.AboutFeed{{Name: "osv/npm", Records: 7}},
}

// packed writes a database of these bytes as a layout.
func packed(t testing.TB, db []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "advisories.db")
	if err := os.WriteFile(path, db, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := update.Pack(context.Background(), path, dir, about)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := a.WriteLayout(&b); err != nil {
		t.Fatal(err)
	}
	a.Discard()
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left: %v, %v", files, err)
	}
	return b.Bytes()
}

// open reads a layout as an import does.
func open(t testing.TB, layout []byte) (body []byte, about update.About, err error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "layout.tar")
	if err := os.WriteFile(path, layout, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if files, readErr := os.ReadDir(dir); readErr != nil || len(files) != 1 {
			t.Errorf("left: %v, %v", files, readErr)
		}
	}()
	l, err := fetch.OpenLayout(t.Context(), path)
	if err != nil {
		return nil, about, err
	}
	defer l.Close()
	found, err := update.Open(context.Background(), l, dir)
	if err != nil {
		return nil, about, err
	}
	defer found.Discard()
	if found.Kind != update.TypeArtifact {
		t.Errorf("it is taken for %q", found.Kind)
	}
	body, err = io.ReadAll(io.NewSectionReader(found.File, 0, found.Size))
	return body, found.About, err
}

func TestArtifactRoundTrip(t *testing.T) {
	db := bytes.Repeat([]byte("a database, more or less. "), 10_000)
	layout := packed(t, db)
	if !bytes.Equal(layout, packed(t, db)) {
		t.Error("the same database makes another artifact the second time")
	}
	if !update.IsTar(bytes.NewReader(layout)) || update.IsTar(bytes.NewReader(db)) || update.IsTar(strings.NewReader("")) {
		t.Error("a layout is not told from something else")
	}
	body, got, err := open(t, layout)
	if err != nil || !bytes.Equal(body, db) {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	if got.Digest != gatehouse.DigestOf(db) || got.Size != int64(len(db)) || got.Records != 7 || !got.UpdatedAt.Equal(about.UpdatedAt) || len(got.Feeds) != 1 {
		t.Errorf("about: %+v", got)
	}
}

// parts are the files of a layout in their order.
func parts(t *testing.T, layout []byte) (names []string, bodies [][]byte) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(layout))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names, bodies = append(names, h.Name), append(bodies, b)
	}
}

func joined(t *testing.T, names []string, bodies [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(bodies[i])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bodies[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDamagedArtifact: no byte of manifest, configuration and database can be
// another one, and nothing can be missing.
func TestDamagedArtifact(t *testing.T) {
	layout := packed(t, bytes.Repeat([]byte("a database, more or less. "), 1000))
	names, bodies := parts(t, layout)
	for i, name := range names {
		if name == "oci-layout" {
			continue
		}
		for _, at := range []int{0, len(bodies[i]) / 2, len(bodies[i]) - 1} {
			changed := bytes.Clone(bodies[i])
			changed[at] ^= 1
			all := append([][]byte{}, bodies...)
			all[i] = changed
			if _, _, err := open(t, joined(t, names, all)); err == nil && name != "index.json" {
				t.Errorf("%s with another byte at %d is taken", name, at)
			}
		}
		all := append([][]byte{}, bodies...)
		all[i] = bodies[i][:len(bodies[i])/2]
		if _, _, err := open(t, joined(t, names, all)); err == nil {
			t.Errorf("half of %s is taken", name)
		}
		without := joined(t, append(append([]string{}, names[:i]...), names[i+1:]...), append(append([][]byte{}, bodies[:i]...), bodies[i+1:]...))
		if _, _, err := open(t, without); err == nil {
			t.Errorf("an artifact without %s is taken", name)
		}
	}
	for _, n := range []int{0, 100, 1000, len(layout) / 2, len(layout) - 2000} {
		if _, _, err := open(t, layout[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken", n, len(layout))
		}
	}
}

// TestNotOlder: a database replaces only what is not newer, and one of a time to
// come would refuse all that follow.
func TestNotOlder(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		have, next time.Time
		ok         bool
	}{
		"newer":            {now.Add(-time.Hour), now.Add(-time.Minute), true},
		"the same":         {now, now, true},
		"into nothing":     {time.Time{}, now, true},
		"older":            {now.Add(-time.Minute), now.Add(-time.Hour), false},
		"of no time":       {now, time.Time{}, false},
		"a clock's skew":   {now, now.Add(time.Hour), true},
		"of a time ahead":  {now, now.AddDate(1, 0, 0), false},
		"a time far ahead": {time.Time{}, now.AddDate(900, 0, 0), false},
	} {
		if err := update.NotOlder(c.have, c.next); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
