package db_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

func open(t *testing.T, path string) *db.DB {
	t.Helper()
	d, err := db.OpenSQLite(t.Context(), path, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestSQLite(t *testing.T) {
	dbtest.Run(t, func(t *testing.T) *db.DB { return open(t, filepath.Join(t.TempDir(), "gatehouse.db")) })
}

// TestSQLiteTurns: writers take turns, so that a transaction sees all that was
// written before it.
func TestSQLiteTurns(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "gatehouse.db"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				err := d.Write(t.Context(), func(tx *db.Tx) error {
					events, err := tx.Events(t.Context(), 0, 1000)
					if err != nil {
						return err
					}
					return tx.AddEvent(t.Context(), gatehouse.Event{Type: "n", Tag: fmt.Sprint(len(events))})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		events, err := tx.Events(t.Context(), 0, 1000)
		for i, e := range events {
			if e.Tag != fmt.Sprint(i) {
				t.Fatalf("event %d saw %s before it", i, e.Tag)
			}
		}
		if len(events) != 80 {
			t.Errorf("%d events, want 80", len(events))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReopen: what was committed is there for the next process, and so is the
// schema.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b%c?d#e.db") // a path is no URL
	d := open(t, path)
	if err := d.Write(t.Context(), func(tx *db.Tx) error { return tx.AddEvent(t.Context(), gatehouse.Event{Type: "kept"}) }); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatalf("the file is not where it was asked for: %v", err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the file has mode %v: it holds password hashes", mode)
	}
	err = open(t, path).Read(t.Context(), func(tx *db.Tx) error {
		events, err := tx.Events(t.Context(), 0, 10)
		if len(events) != 1 {
			t.Errorf("events %v", events)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSchemaWords: every word that the databases spell differently is replaced.
func TestSchemaWords(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "gatehouse.db"))
	texts, err := db.Schema(t.Context(), d)
	if err != nil || len(texts) < 20 {
		t.Fatal(len(texts), err)
	}
	for _, text := range texts {
		if strings.ContainsAny(text, "{}") {
			t.Errorf("left over: %s", text)
		}
	}
}

// TestHotQueriesUseIndexes: no hot path reads a table from end to end.
func TestHotQueriesUseIndexes(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "gatehouse.db"))
	ctx := t.Context()
	plans, err := db.Plans(ctx, d, func(tx *db.Tx) { hotQueries(ctx, tx) })
	if err != nil {
		t.Fatal(err)
	}
	if len(plans) < 30 {
		t.Fatalf("only %d queries were planned", len(plans))
	}
	for query, plan := range plans {
		for _, step := range plan {
			table := strings.HasPrefix(step, "SCAN") || strings.HasPrefix(step, "SEARCH")
			if step == "SCAN h" || step == "SCAN page" || step == "SEARCH page" { // rows that the query made itself
				continue
			}
			if table && !strings.Contains(step, "USING") && !strings.Contains(step, "CONSTANT ROW") {
				t.Errorf("%s\n  %s", query, strings.Join(plan, "\n  "))
				break
			}
		}
	}
}

// hotQueries makes each query of a hot path once. They change nothing: there are
// no rows.
func hotQueries(ctx context.Context, tx *db.Tx) {
	x := gatehouse.DigestOf([]byte("x"))
	tx.Manifest(ctx, "a", x)
	tx.ManifestByTag(ctx, "a", "v1")
	tx.RepoBlob(ctx, "a", x)
	tx.StatBlob(ctx, "a", x)
	tx.Tags(ctx, "a", "", 10)
	tx.Referrers(ctx, "a", x, "t", x, 10)
	tx.BlobRepos(ctx, x, 10)
	tx.UploadsReach(ctx, "actor", 10)
	tx.Repos(ctx, "", 10)
	tx.RepoKnown(ctx, "a")
	tx.HeldBlobs(ctx, 1, []gatehouse.Digest{x, x})
	tx.ManifestIDs(ctx, 1, []gatehouse.Digest{x, x})
	tx.BlobNeeded(ctx, 1, 1)
	tx.Parent(ctx, 1)
	tx.TagsOf(ctx, 1)
	tx.KeyNamed(ctx, "k")
	tx.NamedKeys(ctx, "k", 10)
	tx.ImagesOfBlob(ctx, 1, 10)
	tx.ImagesOfManifest(ctx, 1, 10)
	tx.ReposOfBlob(ctx, 1, 10)
	tx.ManifestCopies(ctx, x, 1, 1)
	tx.ManifestDamaged(ctx, "a", x)
	tx.ManifestWhole(ctx, 1, 1, 1)
	tx.DueBlobs(ctx, time.Now(), 10)
	tx.ScrubTotals(ctx, time.Now())
	tx.Upload(ctx, "a", "u")
	tx.NextJobAt(ctx, []string{"index"})
	tx.ClaimJob(ctx, []string{"index"}, "lease", time.Time{})
	tx.Events(ctx, 7, 10)
	tx.OwnManifest(ctx, "a", x)
	tx.OwnBlob(ctx, "a", x)
	tx.PolicyVersion(ctx)
	tx.Audit(ctx, 7, 10)
	tx.ClaimTasks(ctx, db.BlobTask, time.Time{}, 10)
	tx.NextTask(ctx, true)
	tx.Task(ctx, db.BlobTask, 1)
	tx.OwnBlobs(ctx, []int64{1, 2})
	tx.OwnManifests(ctx, []int64{1, 2})
	tx.GarbageBlobs(ctx, []int64{1, 2})
	tx.LinksEnd(ctx, []int64{1, 2})
	tx.Keepables(ctx, []int64{1, 2})
	tx.Keepers(ctx, []int64{1, 2}, 10)
	tx.TagsToDrop(ctx, 1, []db.Keepable{{ID: 1, Digest: x}})
	tx.DueDoomed(ctx, time.Time{}, 10)
	tx.Held(ctx, "a", x)
	tx.TagHistory(ctx, "a", "v1", 0, 10)
	tx.TagHad(ctx, "a", "v1", x)
	tx.TagsFrom(ctx, "a", "v1", 10)
	tx.TagManifests(ctx, "a", "v1", 10)
	tx.Attached(ctx, "a", x, "i", []string{"s", "t"}, 10, 10)
	tx.AttachedVersion(ctx, "a", x)
	tx.AttachedToManifest(ctx, "a", x)
	tx.AwaitsSubject(ctx, 1, x)
	tx.Ancestors(ctx, "a", x, 10)
	tx.Signatures(ctx, "a", x)
	tx.PullPolicy(ctx, "a")
	tx.PullPolicies(ctx, "a", 10)
	tx.ImmutableTags(ctx, "a")
	tx.AllImmutableTags(ctx, "a", 10)
	tx.TagFixed(ctx, "a", "v1", x)
	db.PlanDelete(ctx, tx)
	scanQueries(ctx, tx)
}

// scanQueries are those of stored images: as many as there are images, or as a
// user asks.
func scanQueries(ctx context.Context, tx *db.Tx) {
	x := gatehouse.DigestOf([]byte("x"))
	img := db.Image{ID: 1, Digest: x}
	tx.ImageByDigest(ctx, x)
	tx.LayersOfImageByID(ctx, 1)
	tx.FindingsOfImage(ctx, img)
	tx.UnscannedLayers(ctx, 1)
	tx.KindCounts(ctx, img)
	tx.GoneFromImage(ctx, img)
	tx.MalwareOfImage(ctx, 1, 10)
	tx.MalwareSeen(ctx, 1, "v")
	tx.NextMalware(ctx, 10)
	tx.QueueMalware(ctx, "v", 1)
	tx.NextReindex(ctx, 10)
	tx.QueueReindex(ctx, "v", 1)
	tx.Bases(ctx, []gatehouse.Digest{x, x}, 10)
	tx.ImagesWithLayer(ctx, x, 1, 10)
	tx.ImagesWithPackage(ctx, 1, "debian:12", 1, 10)
	tx.ImagesWithVulnerability(ctx, []string{"CVE-1", "CVE-2"}, 1, 10)
	tx.ImagesWithoutOpinion(ctx, "s", 1, 10)
	tx.Opinions(ctx, x)
	tx.AdapterScan(ctx, "s")
	tx.AdapterReport(ctx, "s", "k")
	tx.PullToken(ctx, "secret")
	tx.Exception(ctx, 1)
	tx.Exceptions(ctx, "CVE-1", "a", 1, 10)
	tx.ExceptionVersion(ctx)
	tx.Event(ctx, 1)
}

// TestKeptStatements: a statement that is in use, that failed or that there are
// too many of is not mixed up with another.
func TestKeptStatements(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "gatehouse.db"))
	for i := range 700 {
		n, err := db.SelectNumber(t.Context(), d, fmt.Sprintf("SELECT %d + $1", i), 1)
		if err != nil || n != i+1 {
			t.Fatalf("statement %d = %d, %v", i, n, err)
		}
	}
	for range 3 { // the same text, once inside itself
		got, err := db.SelectNested(t.Context(), d, "SELECT 1 UNION SELECT 2 UNION SELECT 3 ORDER BY 1")
		if err != nil || fmt.Sprint(got) != "[1 1 2 3 2 1 2 3 3 1 2 3]" {
			t.Fatalf("nested: %v, %v", got, err)
		}
	}
	for range 3 {
		if _, err := db.SelectNumber(t.Context(), d, "SELECT $1 / no_such_column", 1); err == nil {
			t.Fatal("a wrong statement succeeded")
		}
	}
	before := d.Statements()
	if _, err := db.SelectNumber(t.Context(), d, "SELECT $1", 7); err != nil {
		t.Fatal(err)
	}
	if got := d.Statements() - before; got != 1 {
		t.Errorf("one statement counts as %d", got)
	}
}

// TestErrors: what the database says is told apart: may pass, or our own fault.
func TestErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gatehouse.db")
	d := open(t, path)
	err := d.Write(t.Context(), func(tx *db.Tx) error { return tx.LinkBlob(t.Context(), 404, 404, time.Time{}) })
	if gatehouse.CodeOf(err) != gatehouse.CodeInternal {
		t.Errorf("a broken reference: %v has code %s", err, gatehouse.CodeOf(err))
	}
	d.Close()
	for name, err := range map[string]error{
		"Write": d.Write(t.Context(), func(*db.Tx) error { return nil }),
		"Read":  d.Read(t.Context(), func(*db.Tx) error { return nil }),
		"Get":   d.Get(t.Context(), func(tx *db.Tx) error { _, err := tx.Repos(t.Context(), "", 1); return err }),
	} {
		if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
			t.Errorf("%s on a closed database: %v has code %s", name, err, gatehouse.CodeOf(err))
		}
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(path + "-wal")
	if d, err := db.OpenSQLite(t.Context(), path, db.Options{}); err == nil {
		d.Close()
		t.Error("a file that is no database was opened")
	}
}

// FuzzStoredDigest: what is read as a digest is one, and is stored as it was.
func FuzzStoredDigest(f *testing.F) {
	for _, n := range []int{0, 1, 32, 33, 34, 64, 65, 66} {
		for first := range byte(4) {
			raw := bytes.Repeat([]byte{0xa7}, n)
			if n > 0 {
				raw[0] = first
			}
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		digest, again, err := db.StoredDigest(raw)
		if err != nil {
			return
		}
		if _, err := gatehouse.ParseDigest(digest); err != nil || !bytes.Equal(raw, again) {
			t.Errorf("%x is read as %q (%v) and stored as %x", raw, digest, err, again)
		}
	})
}

// TestEpoch: while it stays, nothing changed; a change that was made is never
// seen under the epoch before it.
func TestEpoch(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "gatehouse.db"))
	ctx := t.Context()
	before, ok := d.Epoch()
	if !ok {
		t.Fatal("one process owns the file, and yet there is no telling")
	}
	if err := d.Get(ctx, func(tx *db.Tx) error { _, err := tx.Repos(ctx, "", 1); return err }); err != nil {
		t.Fatal(err)
	}
	if after, _ := d.Epoch(); after != before {
		t.Errorf("reading moved the epoch from %d to %d", before, after)
	}
	if err := d.Write(ctx, func(tx *db.Tx) error { _, err := tx.EnsureRepo(ctx, "a"); return err }); err != nil {
		t.Fatal(err)
	}
	if after, _ := d.Epoch(); after == before {
		t.Error("a commit left the epoch as it was")
	}
}

// TestEndedContext: a statement does not begin after its context has ended, and
// a transaction whose context ends in the middle leaves nothing.
func TestEndedContext(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "gatehouse.db"))
	ctx, stop := context.WithCancel(t.Context())
	err := d.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.EnsureRepo(ctx, "a"); err != nil {
			t.Error(err)
		}
		stop()
		_, err := tx.EnsureRepo(ctx, "b")
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v", err)
	}
	err = d.Get(ctx, func(tx *db.Tx) error { _, err := tx.StatBlob(ctx, "a", gatehouse.DigestOf(nil)); return err })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Get = %v", err)
	}
	n, err := db.SelectNumber(t.Context(), d, "SELECT COUNT(*) + $1 FROM repository", 0)
	if err != nil || n != 0 {
		t.Errorf("%d repositories are left, %v", n, err)
	}
}
