package db_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestUpgradeFindsGarbage: a database from before garbage collection has its
// garbage looked at, and nothing else.
func TestUpgradeFindsGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gatehouse.db")
	old, err := db.OpenOld(t.Context(), path, 4)
	if err != nil {
		t.Fatal(err)
	}
	digests := regexp.MustCompile(`x'01([0-9a-f]{2})'`) // they stand for whole ones
	for _, statement := range []string{
		`INSERT INTO repository (id, path, created_at) VALUES (1, 'a', 1)`,
		`INSERT INTO event (type, at) VALUES ('x', 5000000)`,
		// 1 tagged, 2 never tagged, 3 lost its tag.
		`INSERT INTO manifest (id, repo_id, digest, media_type, size, body, pushed_by, pushed_at) VALUES (1, 1, x'01aa', '', 0, x'', '', 1000000)`,
		`INSERT INTO manifest (id, repo_id, digest, media_type, size, body, pushed_by, pushed_at) VALUES (2, 1, x'01bb', '', 0, x'', '', 2000000)`,
		`INSERT INTO manifest (id, repo_id, digest, media_type, size, body, pushed_by, pushed_at) VALUES (3, 1, x'01cc', '', 0, x'', '', 3000000)`,
		`INSERT INTO tag (repo_id, name, manifest_id, updated_by, updated_at) VALUES (1, 'v1', 1, '', 1)`,
		`INSERT INTO tag_history (repo_id, name, old_digest, new_digest, actor, at) VALUES (1, 'v1', x'01cc', x'01aa', '', 4000000)`,
		// 1 needed, 2 held by a link that no manifest needs any more, 3 pinned, 4 by no link.
		`INSERT INTO blob (id, digest, size, inline, created_at) VALUES (1, x'0101', 0, x'', 1), (2, x'0102', 0, x'', 1), (3, x'0103', 0, x'', 1), (4, x'0104', 0, x'', 1)`,
		`INSERT INTO repo_blob (repo_id, blob_id, expires_at) VALUES (1, 1, NULL), (1, 2, NULL), (1, 3, 7000000)`,
		`INSERT INTO manifest_blob (manifest_id, ordinal, blob_id, kind) VALUES (1, 0, 1, 2)`,
	} {
		statement = digests.ReplaceAllString(statement, "x'01"+strings.Repeat("$1", 32)+"'")
		if err := db.Exec(t.Context(), old, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	at := func(seconds int64, window time.Duration) time.Time { return time.Unix(seconds, 0).Add(window) }
	err = open(t, path).Read(t.Context(), func(tx *db.Tx) error {
		for _, want := range []struct {
			kind db.TaskKind
			key  int64
			at   time.Time // zero: there is none
		}{
			{db.ManifestTask, 1, time.Time{}}, {db.ManifestTask, 2, at(2, day)}, {db.ManifestTask, 3, at(4, 14*day)},
			{db.BlobTask, 1, time.Time{}}, {db.BlobTask, 2, at(5, day)}, {db.BlobTask, 3, at(7, 0)}, {db.BlobTask, 4, time.Time{}},
		} {
			task, ok, err := tx.Task(t.Context(), want.kind, want.key)
			due := want.kind == db.BlobTask && want.key == 4 // due since ever
			if err != nil || ok != (due || !want.at.IsZero()) || !task.ReviewAfter.Equal(want.at) {
				t.Errorf("kind %d, row %d: %+v, %v, %v, want %v", want.kind, want.key, task, ok, err, want.at)
			}
		}
		_, needed, err := tx.BlobNeeded(t.Context(), 1, 1)
		if !needed {
			t.Error("the blob of the tagged manifest counts as not needed")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCorruptBlobIsTakenOver: whoever pushes the bytes of a blob again that is
// known to be corrupt gets its row; its old key is named until its bytes are deleted.
func TestCorruptBlobIsTakenOver(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "gatehouse.db"))
	ctx, x := t.Context(), gatehouse.DigestOf([]byte("x"))
	var id int64
	add := func(key string) (got int64, won bool) {
		t.Helper()
		err := d.Write(ctx, func(tx *db.Tx) (err error) {
			got, won, err = tx.AddBlob(ctx, db.Blob{Digest: x, Size: 1, StorageKey: key})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return got, won
	}
	if err := d.Write(ctx, func(tx *db.Tx) error { _, err := tx.EnsureRepo(ctx, "a"); return err }); err != nil {
		t.Fatal(err)
	}
	id, _ = add("00/old")
	if err := db.Exec(ctx, d, `UPDATE blob SET state = 2`); err != nil {
		t.Fatal(err)
	}
	if again, won := add("00/new"); !won || again != id {
		t.Errorf("won %v, row %d, was %d", won, again, id)
	}
	err := d.Read(ctx, func(tx *db.Tx) error {
		b, live, err := tx.Blob(ctx, x)
		if err != nil || !live || b.StorageKey != "00/new" {
			t.Errorf("blob %+v, %v, %v", b, live, err)
		}
		named, err := tx.KeyNamed(ctx, "00/old")
		if !named {
			t.Error("the old key is lost")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
