package tlog_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// fill adds entries and waits until the last one has its place.
func (h *harness) fill(from, to int) {
	h.t.Helper()
	for ; from < to; from += 500 {
		var last tlog.Hash
		err := h.db.Write(h.t.Context(), func(tx *db.Tx) (err error) {
			for i := from; i < min(from+500, to); i++ {
				if last, err = h.Add(h.t.Context(), tx, fmt.Append(nil, "entry ", i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			h.t.Fatal(err)
		}
		if _, err := h.Wait(h.t.Context(), last); err != nil {
			h.t.Fatal(err)
		}
	}
}

// TestCopy: a copy is the log, proves itself without the log, is prolonged by the
// next one, and is refused where the log is not what it was.
func TestCopy(t *testing.T) {
	h := start(t, tlog.Options{Interval: time.Millisecond})
	dir := tlog.Dir(t.TempDir())
	ctx := t.Context()
	h.fill(0, 700)
	first, err := tlog.Copy(ctx, h, dir, h.key, nil)
	if err != nil || first.Tree.N != 700 {
		t.Fatalf("%+v %v", first, err)
	}
	h.fill(700, 1300)
	counted := &counting{Source: h}
	second, err := tlog.Copy(ctx, counted, dir, h.key, nil)
	if err != nil || second.Tree.N != 1300 {
		t.Fatalf("%+v %v", second, err)
	}
	if counted.bundles != 4 { // from the one that was not full
		t.Errorf("the second copy reads %d bundles", counted.bundles)
	}
	// The files are the log, for others too.
	files := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer files.Close()
	for name, from := range map[string]tlog.Source{"directory": dir, "files behind HTTP": tlog.HTTP{Base: files.URL, Client: files.Client()}} {
		signed, err := from.Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := tlog.OpenCheckpoint(signed, origin, h.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.Check(ctx, from, c.Tree); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := tlog.Consistency(ctx, from, first.Tree, c.Tree); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		proof, leaf, err := tlog.Inclusion(ctx, from, c.Tree, 700)
		if err != nil || leaf != tlog.LeafHash([]byte("entry 700")) || tlog.CheckInclusion(proof, c.Tree, 700, leaf) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := start(t, tlog.Options{})
	other.fill(0, 3)
	if _, err := tlog.Copy(ctx, other, dir, h.key, nil); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
		t.Errorf("a log with another key: %v", err)
	}
	fork := startOn(t, open(t), h.signer, h.key, tlog.Options{})
	fork.fill(1, 1400)
	if _, err := tlog.Copy(ctx, fork, dir, h.key, nil); gatehouse.CodeOf(err) != gatehouse.CodeDenied || !strings.Contains(err.Error(), "seen before") {
		t.Errorf("a forked log: %v", err)
	}
}

// TestChangedCopy: whatever byte of a copy is changed, it does not prove itself.
func TestChangedCopy(t *testing.T) {
	h := start(t, tlog.Options{Interval: time.Millisecond})
	h.fill(0, 600)
	whole := tlog.Dir(t.TempDir())
	c, err := tlog.Copy(t.Context(), h, whole, h.key, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	err = filepath.WalkDir(string(whole), func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, at := range []int{0, len(data) / 2, len(data) - 1} {
			bad := append([]byte(nil), data...)
			bad[at] ^= 1
			if err := os.WriteFile(name, bad, 0o600); err != nil {
				return err
			}
			if proves(t.Context(), whole, h.key) == nil {
				t.Errorf("%s with byte %d changed passes", name, at)
			}
			changed++
		}
		return os.WriteFile(name, data, 0o600)
	})
	if err != nil || changed < 9 {
		t.Fatal(changed, err)
	}
	if err := proves(t.Context(), whole, h.key); err != nil {
		t.Errorf("the copy of %d entries, as it was: %v", c.Tree.N, err)
	}
}

// proves reads a log to its end, with a key.
func proves(ctx context.Context, from tlog.Source, key note.Verifier) error {
	signed, err := from.Checkpoint(ctx)
	if err != nil {
		return err
	}
	c, _, err := tlog.OpenCheckpoint(signed, key.Name(), key)
	if err != nil {
		return err
	}
	return tlog.Check(ctx, from, c.Tree)
}

// counting counts bundles.
type counting struct {
	tlog.Source
	bundles int
}

func (c *counting) Tile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	if t.Level == tlog.EntriesLevel {
		c.bundles++
	}
	return c.Source.Tile(ctx, t)
}
