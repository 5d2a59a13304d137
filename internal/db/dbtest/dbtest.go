// Package dbtest is the suite that every database behind [db.DB] passes: the
// same rows, the same order, the same errors, the same exclusion.
package dbtest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Run runs the suite. open returns an empty database.
func Run(t *testing.T, open func(t *testing.T) *db.DB) {
	for _, group := range [][]test{txTests, contentTests, uploadTests, jobTests, damageTests, gcTests, settingTests, exceptionTests, findingTests, malwareTests, adapterTests, tlogTests, sigstoreTests, signatureTests, promotionTests, reviewTests, clusterTests, runningTests, immutableTests} {
		for _, test := range group {
			t.Run(test.name, func(t *testing.T) { test.run(&suite{T: t, d: open(t)}) })
		}
	}
}

type test struct {
	name string
	run  func(*suite)
}

type suite struct {
	*testing.T
	d *db.DB
}

var actor = gatehouse.Actor{Name: "tester", Addr: "192.0.2.1"}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) write(f func(*db.Tx) error) {
	s.Helper()
	s.must(s.d.Write(s.Context(), f))
}

func (s *suite) read(f func(*db.Tx) error) {
	s.Helper()
	s.must(s.d.Read(s.Context(), f))
}

func (s *suite) wantCode(err error, code gatehouse.Code, detail string) {
	s.Helper()
	var e *gatehouse.Error
	if !errors.As(err, &e) || e.Code != code || e.Detail != detail {
		s.Fatalf("error %v, want %s %s", err, code, detail)
	}
}

func want[T any](s *suite, what string, want, got T) {
	s.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		s.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// digest names a text.
func digest(text string) gatehouse.Digest { return gatehouse.DigestOf([]byte(text)) }

// blob adds a blob that a repository holds for an hour.
func (s *suite) blob(repo gatehouse.Repo, text string) (repoID, blobID int64) {
	s.Helper()
	s.write(func(tx *db.Tx) (err error) {
		if repoID, err = tx.EnsureRepo(s.Context(), repo); err != nil {
			return err
		}
		if blobID, _, err = tx.AddBlob(s.Context(), db.Blob{Digest: digest(text), Size: int64(len(text)), Inline: []byte(text)}); err != nil {
			return err
		}
		return tx.LinkBlob(s.Context(), repoID, blobID, tx.Now().Add(time.Hour))
	})
	return repoID, blobID
}

// manifest adds a manifest and returns where tags may point.
func (s *suite) manifest(repo gatehouse.Repo, m db.NewManifest) db.TagTarget {
	s.Helper()
	if m.Body == nil {
		m.Body = []byte("{}")
	}
	if m.Digest == "" {
		m.Digest = gatehouse.DigestOf(m.Body)
	}
	m.Size, m.PushedBy = int64(len(m.Body)), actor.Name
	to := db.TagTarget{Repo: repo, Digest: m.Digest}
	s.write(func(tx *db.Tx) (err error) {
		if to.RepoID, err = tx.EnsureRepo(s.Context(), repo); err != nil {
			return err
		}
		m.RepoID = to.RepoID
		to.ManifestID, _, err = tx.AddManifest(s.Context(), m)
		return err
	})
	return to
}
