package pipeline_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// replica is another process's view of h's generations: the same rows and the
// same store, and a directory of its own.
func (h *house) replica() *pipeline.Advisories {
	h.t.Helper()
	a, err := pipeline.OpenAdvisories(h.db, h.store, h.t.TempDir())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { a.Close() })
	return a
}

func (h *house) objects() []blob.Object {
	h.t.Helper()
	objects, err := h.store.List(h.t.Context(), "", 100)
	if err != nil {
		h.t.Fatal(err)
	}
	return objects
}

// sound reports objects that no row names.
func (h *house) sound() {
	h.t.Helper()
	for _, o := range h.objects() {
		err := h.db.Read(h.t.Context(), func(tx *db.Tx) error {
			named, err := tx.KeyNamed(h.t.Context(), o.Key)
			if !named {
				h.t.Errorf("no row names %s", o.Key)
			}
			return err
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

func info() advisory.Info { return advisory.Info{Source: "test", BuiltAt: time.Unix(1, 0)} }

func none(func(gatehouse.Advisory, error) bool) {}

func records(t *testing.T, a *pipeline.Advisories) (db.Generation, int) {
	t.Helper()
	gen, file, release, err := a.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	return gen, file.Meta().Records
}

// TestAdvisoriesOnTwoReplicas: what one imported, another one fetches, and
// builds upon.
func TestAdvisoriesOnTwoReplicas(t *testing.T) {
	h := open(t, t.TempDir()).work()
	first := h.publish(flaw("CVE-1", "npm", "minimist", "1.2.6"))
	other := h.replica()
	if gen, n := records(t, other); gen.ID != first.ID || n != 1 {
		t.Fatalf("the replica answers by %d with %d records", gen.ID, n)
	}
	// The other one imports; the first one, whose jobs run, matches.
	mine := h.advisories
	h.advisories = other
	second := h.publish(flaw("CVE-2", "npm", "lodash", "4.0.0"))
	h.advisories = mine
	if gen, n := records(t, mine); gen.ID != second.ID || n != 2 {
		t.Fatalf("the first replica answers by %d with %d records", gen.ID, n)
	}
	if n := len(h.objects()); n != 2 {
		t.Errorf("storage holds %d objects, want the two generations", n)
	}
}

// TestDamagedGenerationIsRefused: what arrives with other bytes, or fewer, never
// gets its name, and what was in force stays so.
func TestDamagedGenerationIsRefused(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir).work()
	before := h.publish(flaw("CVE-1", "npm", "minimist", "1.2.6"))
	replica := h.replica()
	records(t, replica)
	h.stop()
	h.stop = nil
	next, err := h.tryImport(flaw("CVE-2", "npm", "lodash", "4.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "blobs", next.StorageKey)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)/2] ^= 1
	for name, bytes := range map[string][]byte{"truncated": good[:len(good)-1], "longer": append(append([]byte(nil), good...), 0), "changed": flipped, "gone": nil} {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if bytes != nil {
			if err := os.WriteFile(path, bytes, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fresh := h.replica()
		if _, err := fresh.Import(t.Context(), gatehouse.Actor{}, info(), none); err == nil || gatehouse.CodeOf(err) == gatehouse.CodeInvalid {
			t.Errorf("%s: an import was built upon it: %v", name, err)
		}
		if gen, n := records(t, fresh); gen.ID != before.ID || n != 1 {
			t.Errorf("%s: generation %d with %d records is in force", name, gen.ID, n)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	h.advisories = h.replica()
	h.work()
	if now, err := h.advisories.InForce(t.Context(), next); err != nil || now.ID != next.ID {
		t.Errorf("once it is whole: %d, %v", now.ID, err)
	}
}

// TestOldGenerationsLeaveStorage: keys are named by rows as long as there are
// bytes, and go with the generations that nobody needs.
func TestOldGenerationsLeaveStorage(t *testing.T) {
	h := open(t, t.TempDir()).work()
	for _, id := range []string{"CVE-1", "CVE-2", "CVE-3", "CVE-4"} {
		h.publish(flaw(id, "npm", "minimist", "1.2.6"))
	}
	h.sound()
	if err := h.advisories.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.sound()
	if n := len(h.objects()); n != 2 {
		t.Errorf("storage holds %d objects, want the generation in force and its parent", n)
	}
	if _, n := records(t, h.replica()); n != 4 {
		t.Errorf("%d records in force", n)
	}
}

// TestUnfinishedImportLeavesStorage: what an import stored before its process
// died is spared while it may be under way, and goes then.
func TestUnfinishedImportLeavesStorage(t *testing.T) {
	now := time.Now()
	h := open(t, t.TempDir())
	key := blob.NewKey(now)
	err := h.db.Write(t.Context(), func(tx *db.Tx) error { return tx.AddAdvisoryFile(t.Context(), key) })
	if err != nil {
		t.Fatal(err)
	}
	w, err := h.store.Write(t.Context(), key, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	drop := func(before time.Time) (keys []string) {
		err := h.db.Write(t.Context(), func(tx *db.Tx) (err error) {
			keys, err = tx.DropAdvisoryFiles(t.Context(), nil, before)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	if keys := drop(now.Add(-time.Hour)); len(keys) != 0 {
		t.Fatalf("%v are dropped while they may be under way", keys)
	}
	if keys := drop(now.Add(time.Hour)); len(keys) != 1 {
		t.Fatalf("%v are dropped, want the one", keys)
	}
	// From here on it is too late for the import.
	err = h.db.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.AddGeneration(t.Context(), db.Generation{Digest: gatehouse.DigestOf([]byte("x")), StorageKey: key})
		return err
	})
	if gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("a generation was added with bytes that are to be deleted: %v", err)
	}
	if err := h.advisories.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if objects := h.objects(); len(objects) != 0 {
		t.Errorf("storage holds %v", objects)
	}
	h.sound()
}

// TestGenerationOfAnOlderVersion: its file lies in the directory only. The sweep
// stores it, once.
func TestGenerationOfAnOlderVersion(t *testing.T) {
	h := open(t, t.TempDir()).work()
	gen := h.publish(flaw("CVE-1", "npm", "minimist", "1.2.6"))
	err := h.db.Write(t.Context(), func(tx *db.Tx) error {
		keys, err := tx.DropAdvisoryFiles(t.Context(), nil, time.Time{})
		if err != nil {
			return err
		}
		if err := h.store.Delete(t.Context(), keys...); err != nil {
			return err
		}
		return tx.ForgetAdvisoryFiles(t.Context(), keys)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := h.replica().Acquire(t.Context()); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Fatalf("a replica without the file: %v", err)
	}
	for range 2 {
		if err := h.advisories.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(h.objects()); n != 1 {
		t.Errorf("storage holds %d objects, want the one generation", n)
	}
	if got, n := records(t, h.replica()); got.ID != gen.ID || n != 1 {
		t.Errorf("generation %d with %d records", got.ID, n)
	}
	h.sound()
}

// TestImportsOnTwoReplicas: the one that did not see the other's records fails.
func TestImportsOnTwoReplicas(t *testing.T) {
	h := open(t, t.TempDir()).work()
	h.publish(flaw("CVE-1", "npm", "minimist", "1.2.6"))
	other := h.replica()
	slow := func(yield func(gatehouse.Advisory, error) bool) {
		h.publish(flaw("CVE-2", "npm", "lodash", "4.0.0")) // meanwhile
	}
	if _, err := other.Import(t.Context(), gatehouse.Actor{}, info(), slow); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("the overtaken import: %v", err)
	}
	if _, n := records(t, h.advisories); n != 2 {
		t.Errorf("%d records in force", n)
	}
}
