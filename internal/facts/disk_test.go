package facts_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/facts"
)

// TestRestartWhileAway: after a restart facts count from when they were last asked for,
// whatever the feed said of them.
func TestRestartWhileAway(t *testing.T) {
	w := newWorld(t)
	digest := w.put("app")
	w.poll()
	w.know(digest, false)
	w.at = w.at.Add(time.Hour)
	if _, err := w.Again(t.Context(), repo, digest); err != nil {
		t.Fatal(err)
	}
	asked := w.at
	w.at = w.at.Add(time.Hour)
	w.poll()
	w.away(gone)
	w.open()
	w.at = asked.Add(24*time.Hour - time.Second)
	if _, asOf, err := w.Follower.Image(t.Context(), repo, digest); err != nil || !asOf.Equal(asked) {
		t.Errorf("as of %v, %v; they were asked for at %v", asOf, err, asked)
	}
	w.at = asked.Add(24*time.Hour + time.Second)
	w.refuse(digest, gatehouse.CodeUnavailable, "older than admission-max-stale")
}

// files reads what is on the disk, by path.
func (w *world) files() map[string][]byte {
	w.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		out[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return out
}

// TestDiskMakesNothingYounger: whoever can write to the disk can put back what was signed
// before, and take away what is there; facts count from when they were signed all the
// same.
func TestDiskMakesNothingYounger(t *testing.T) {
	for name, test := range map[string]struct {
		back    func(path string) bool // files that are put back as they were
		restart bool
	}{
		"nothing is put back":       {func(string) bool { return false }, true},
		"the facts":                 {func(path string) bool { return filepath.Base(path) != "state.json" }, true},
		"the facts, while it runs":  {func(path string) bool { return filepath.Base(path) != "state.json" }, false},
		"the position":              {func(path string) bool { return filepath.Base(path) == "state.json" }, true},
		"everything":                {func(string) bool { return true }, true},
		"everything, while it runs": {func(string) bool { return true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			digest, large := w.put("app"), w.put("large")
			w.images[large].Scan.Incomplete = []string{strings.Repeat("x", 33<<20)}
			w.poll()
			w.know(digest, false)
			first, before := w.at, w.files()
			w.at = w.at.Add(10 * time.Hour)
			w.change(facts.Change{Repository: repo}) // a flaw, for example
			w.poll()
			asked := first
			if !test.restart {
				w.at = w.at.Add(time.Second)
				w.images[digest].Scan.Incomplete = []string{"a flaw"}
				w.know(digest, false)
				asked = w.at
				w.know(large, false) // it takes all memory: the others are on the disk alone
			}
			w.at = w.at.Add(10 * time.Hour)
			w.poll()
			last := w.at
			for path := range w.files() {
				if strings.HasSuffix(path, ".old") {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
			}
			for path, b := range before {
				if test.back(path) {
					if err := os.WriteFile(path, b, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if test.restart {
				w.open()
			}
			w.away(gone)
			w.at = w.at.Add(time.Minute)
			img, asOf, err := w.Follower.Image(t.Context(), repo, digest)
			if err != nil {
				t.Fatal(err)
			}
			if len(img.Scan.Incomplete) == 0 && !asOf.Equal(first) {
				t.Errorf("the first facts count as of %v, they were signed at %v", asOf, first)
			}
			if len(img.Scan.Incomplete) > 0 && !asOf.Equal(last) && !asOf.Equal(asked) {
				t.Errorf("the later facts count as of %v, they were signed at %v", asOf, asked)
			}
			w.at = first.Add(24*time.Hour + time.Second)
			if len(img.Scan.Incomplete) == 0 {
				w.refuse(digest, gatehouse.CodeUnavailable, "older than admission-max-stale")
			}
		})
	}
}

// TestKeptIsAskedAgain: what is only on the disk is asked about now and then, so that it
// counts should the server go away and this process begin anew.
func TestKeptIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{signer: newSigner(t), now: time.Now, images: map[gatehouse.Digest]*facts.Image{}, generation: 3}
		w := &world{T: t, server: s, dir: t.TempDir()}
		keys, err := facts.ParseKeys(s.public)
		if err != nil {
			t.Fatal(err)
		}
		open := func() {
			if w.Follower, err = facts.Open(facts.Options{Server: s, Keys: keys, Dir: w.dir, MaxStale: time.Hour, Now: time.Now}); err != nil {
				t.Fatal(err)
			}
		}
		var digests []gatehouse.Digest
		for i := range 5 {
			digests = append(digests, s.put(fmt.Sprint(i)))
		}
		open()
		time.Sleep(time.Second)
		if err := w.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, d := range digests {
			w.know(d, false)
		}
		open()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Follower.Run(ctx) }()
		time.Sleep(20 * time.Minute)
		stop()
		<-done
		if s.asked < 2*len(digests) || s.asked > 10*len(digests) {
			t.Errorf("%d questions about %d images", s.asked, len(digests))
		}
		w.away(gone)
		open()
		time.Sleep(45 * time.Minute) // it is longer than an hour that somebody wanted them
		for _, d := range digests {
			w.know(d, true)
		}
	})
}

// TestSpoiledDisk: what lies on the disk is believed as far as it is signed, and is
// fetched again.
func TestSpoiledDisk(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"a bit":     func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"truncated": func(b []byte) []byte { return b[:len(b)/3] },
		"empty":     func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			digest, sibling := w.put("app"), w.put("sibling")
			w.poll()
			w.know(digest, false)
			w.know(sibling, false)
			err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil || !strings.Contains(e.Name(), digest.Hex()) {
					return err
				}
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				return os.WriteFile(path, spoil(b), 0o600)
			})
			if err != nil {
				t.Fatal(err)
			}
			w.open()
			w.away(gone)
			w.at = w.at.Add(time.Minute)
			w.refuse(digest, gatehouse.CodeUnavailable, "has not told anything")
			w.know(sibling, true)
			w.away(nil)
			w.at = w.at.Add(time.Minute)
			w.poll()
			w.know(digest, false)
		})
	}
}

// TestSpoiledState: without a page of the server nothing that is kept counts, and the
// feed begins anew.
func TestSpoiledState(t *testing.T) {
	w := newWorld(t)
	digest := w.put("app")
	w.poll()
	w.know(digest, false)
	if err := os.WriteFile(filepath.Join(w.dir, "state.json"), []byte(`{"page":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.away(gone)
	w.refuse(digest, gatehouse.CodeUnavailable, "has not told anything")
	w.away(nil)
	w.at = w.at.Add(time.Minute)
	w.poll()
	w.know(digest, false)
}
