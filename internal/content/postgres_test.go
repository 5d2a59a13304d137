package content_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// TestPostgres runs the tests again on PostgreSQL: see openDB.
func TestPostgres(t *testing.T) {
	t.Run("ContentInMemory", TestContentInMemory)
	t.Run("CommitAgain", TestCommitAgain)
	t.Run("ParallelChanges", TestParallelChanges)
	t.Run("Simulation", TestSimulation)
	t.Run("Traces", TestTraces)
	t.Run("OnPush", TestOnPush)
	t.Run("ReferrerAnnotations", TestReferrerAnnotations)
	t.Run("LeaseOfTheDead", TestLeaseOfTheDead)
	t.Run("CancelDuringAppend", TestCancelDuringAppend)
	t.Run("Sweep", TestSweep)
	t.Run("Damage", TestDamage)
	t.Run("Kill", TestKill)
	t.Run("GCRules", TestGCRules)
	t.Run("GCInParallel", TestGCInParallel)
	t.Run("GCLooksFirst", TestGCLooksFirst)
	t.Run("GCSlices", TestGCSlices)
	t.Run("GCCrashes", TestGCCrashes)
	t.Run("GCStatus", TestGCStatus)
	t.Run("DryRun", TestDryRun)
	t.Run("Holds", TestHolds)
	t.Run("Explain", TestExplain)
	t.Run("TagRestore", TestTagRestore)
	t.Run("TagsFrom", TestTagsFrom)
	t.Run("OnAttached", TestOnAttached)
	t.Run("TagHistory", TestTagHistory)
	t.Run("Tree", TestTree)
	t.Run("TreesAreJoined", TestTreesAreJoined)
	t.Run("TreeIsAllOrNothing", TestTreeIsAllOrNothing)
	t.Run("TreesAtOnce", TestTreesAtOnce)
	t.Run("ValidSignaturesComeFirst", TestValidSignaturesComeFirst)
	t.Run("TagsArePointedOneByOne", TestTagsArePointedOneByOne)
	t.Run("KillDuringCopies", TestKillDuringCopies)
}

// replicas are two processes on one database and one storage.
func replicas(t *testing.T) (one, two *content.Content) {
	url, store := dbtest.Postgres(t), mem.New()
	one = content.New(dbtest.Open(t, url, db.Options{}), store, content.Options{})
	two = content.New(dbtest.Open(t, url, db.Options{}), store, content.Options{})
	return one, two
}

// TestReplicasChangeAtOnce what they like: rows and bytes agree.
func TestReplicasChangeAtOnce(t *testing.T) {
	one, two := replicas(t)
	parallelChanges(t, one, two)
}

// TestReplicaGoesOn: an upload that one replica began is continued by another,
// and finished by the first.
func TestReplicaGoesOn(t *testing.T) {
	one, two := replicas(t)
	first, second := &contenttest.Suite{T: t, C: one}, &contenttest.Suite{T: t, C: two}
	text := strings.Repeat("0123456789", 30_000)
	u := first.Start("a/b", "")
	for i, s := range []*contenttest.Suite{first, second, first, second} { // small, then into storage
		from, to := []int{0, 1000, 100_000, 250_000}[i], []int{1000, 100_000, 250_000, len(text)}[i]
		n, err := s.Resume("a/b", u.ID()).Append(t.Context(), int64(from), strings.NewReader(text[from:to]))
		if err != nil || n != int64(to) {
			t.Fatalf("up to %d: %d, %v", to, n, err)
		}
	}
	desc, err := first.Resume("a/b", u.ID()).Commit(t.Context(), gatehouse.DigestOf([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	second.WantBlob("a/b", desc, text)
	wantSound(t, two)
}

// TestReferrerWaitsForItsSubject: while one replica decides whether a subject is
// garbage, nobody adds a referrer that would keep it; and the other way round.
func TestReferrerWaitsForItsSubject(t *testing.T) {
	url, store, ctx := dbtest.Postgres(t), mem.New(), t.Context()
	collector := dbtest.Open(t, url, db.Options{})
	s := &contenttest.Suite{T: t, C: content.New(dbtest.Open(t, url, db.Options{}), store, content.Options{})}
	const index = "application/vnd.oci.image.index.v1+json"
	subject, err := s.Put("a/b", index, []byte(`{"schemaVersion":2,"mediaType":"`+index+`","manifests":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	referrer := []byte(`{"schemaVersion":2,"mediaType":"` + index + `","manifests":[],"subject":{"mediaType":"` + index +
		`","digest":"` + string(subject.Digest) + `","size":` + strconv.FormatInt(subject.Size, 10) + `}}`)
	pushed := make(chan error, 1)
	err = collector.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.OwnManifest(ctx, "a/b", subject.Digest); err != nil {
			return err
		}
		go func() {
			_, err := s.Put("a/b", index, referrer, "keep")
			pushed <- err
		}()
		select {
		case err := <-pushed:
			t.Errorf("the referrer was added under the collector's eyes: %v", err)
			pushed <- err
		case <-time.After(200 * time.Millisecond): // it waits
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-pushed; err != nil {
		t.Fatal(err)
	}
}
