package db_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

func TestPostgres(t *testing.T) {
	dbtest.Run(t, func(t *testing.T) *db.DB { return dbtest.OpenPostgres(t, db.Options{}) })
	t.Run("CountsAddUp", TestCountsAddUp)
	t.Run("FindingsOfOneImageAreBounded", TestFindingsOfOneImageAreBounded)
	t.Run("PruneDecisions", TestPruneDecisions)
}

// TestPostgresURLRefused: what is wrong with a URL is said without its password.
func TestPostgresURLRefused(t *testing.T) {
	good, err := url.Parse(dbtest.EmptyPostgres(t))
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(u *url.URL)) string {
		u := *good
		change(&u)
		return u.String()
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	const secret = "s3cr3t"
	for name, test := range map[string]struct {
		url  string
		code gatehouse.Code
		text string
	}{
		"another scheme":          {"mysql://root:" + secret + "@h/db", gatehouse.CodeInvalid, "postgres://"},
		"no URL":                  {"host=h user=u password=" + secret, gatehouse.CodeInvalid, "postgres://"},
		"a password with a slash": {"postgres://u:a/" + secret + "@h/db", gatehouse.CodeInvalid, "cannot be read"},
		"a password with a hash":  {"postgres://u:12#" + secret + "@h/db", gatehouse.CodeInvalid, "cannot be"},
		"a password with an at":   {"postgres://u:12@" + secret + "@h/db", gatehouse.CodeInvalid, "more than one @"},
		"a password with percent": {"postgres://u:%zz" + secret + "@h/db", gatehouse.CodeInvalid, "cannot be read"},
		"an unknown sslmode":      {"postgres://u:" + secret + "@h/db?sslmode=maybe", gatehouse.CodeInvalid, "sslmode"},
		"a pool of none":          {"postgres://u:" + secret + "@h/db?pool_max_conns=0", gatehouse.CodeInvalid, "pool_max_conns"},
		"the password as a key":   {"postgres://u@h/db?password=" + secret + "&connect_timeout=" + secret, gatehouse.CodeInvalid, "cannot be used"},
		"the wrong password":      {with(func(u *url.URL) { u.User = url.UserPassword("gatehouse", secret) }), gatehouse.CodeInvalid, "login is refused"},
		"no such database":        {with(func(u *url.URL) { u.Path = "/none" }), gatehouse.CodeInvalid, "no such database"},
		"no such schema":          {with(func(u *url.URL) { u.RawQuery = "search_path=none" }), gatehouse.CodeInvalid, "schema"},
		"nobody there":            {with(func(u *url.URL) { u.Host = nobody.Addr().String() }), gatehouse.CodeUnavailable, "does not answer"},
	} {
		d, err := db.OpenPostgres(t.Context(), test.url, db.Options{})
		if err == nil {
			d.Close()
		}
		var ge *gatehouse.Error
		if !errors.As(err, &ge) || ge.Code != test.code || !strings.Contains(err.Error(), test.text) && !strings.Contains(ge.Hint, test.text) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if password, _ := good.User.Password(); strings.Contains(err.Error()+ge.Hint, secret) || strings.Contains(err.Error()+ge.Hint, password) {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
		if ge.Hint == "" && name != "a pool of none" {
			t.Errorf("%s: no hint", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.OpenPostgres(ctx, good.String(), db.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestPostgresURLObeyed: what the URL says is how we connect.
func TestPostgresURLObeyed(t *testing.T) {
	plain := dbtest.EmptyPostgres(t)
	d := dbtest.Open(t, plain, db.Options{})
	ask := func(d *db.DB, query string) string {
		t.Helper()
		text, err := db.Select(t.Context(), d, query)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if got := ask(d, `SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()`); got != "gatehouse" {
		t.Errorf("application_name %q", got)
	}
	if got := ask(d, `SELECT current_setting('synchronous_commit')`); got != "on" {
		t.Errorf("commits are durable: %q", got)
	}
	if err := db.Exec(t.Context(), d, `CREATE SCHEMA other`); err != nil {
		t.Fatal(err)
	}
	other := dbtest.Open(t, plain+"?search_path=other&application_name=mine&pool_max_conns=4", db.Options{})
	if got := ask(other, `SELECT current_setting('application_name') || ' ' || (SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'other' AND tablename = 'blob')::text`); got != "mine 1" {
		t.Errorf("in the other schema: %q", got)
	}
	err := other.Write(t.Context(), func(tx *db.Tx) error { _, err := tx.EnsureRepo(t.Context(), "a"); return err })
	if got := ask(d, `SELECT COUNT(*)::text FROM repository`); err != nil || got != "0" {
		t.Errorf("the schemas share rows: %s, %v", got, err)
	}
}

// TestMigrateAtOnce: replicas that start together on an empty database make one
// schema.
func TestMigrateAtOnce(t *testing.T) {
	empty := dbtest.EmptyPostgres(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			d, err := db.OpenPostgres(t.Context(), empty, db.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			err = d.Write(t.Context(), func(tx *db.Tx) error { _, err := tx.EnsureRepo(t.Context(), "a"); return err })
			if err := errors.Join(err, d.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestNewerSchema: a database that a newer program has used is left alone.
func TestNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gatehouse.db")
	check := func(t *testing.T, open func() (*db.DB, error)) {
		d, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.AgeProgram(t.Context(), d, 7), d.Close()); err != nil {
			t.Fatal(err)
		}
		d, err = open()
		var ge *gatehouse.Error
		if !errors.As(err, &ge) || ge.Code != gatehouse.CodeConflict || !strings.Contains(err.Error(), "version") || !strings.Contains(ge.Hint, "newer gatehouse") {
			t.Errorf("opened with %v", err)
		}
		if err == nil {
			d.Close()
		}
	}
	t.Run("SQLite", func(t *testing.T) {
		check(t, func() (*db.DB, error) { return db.OpenSQLite(t.Context(), path, db.Options{}) })
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		u := dbtest.Postgres(t)
		check(t, func() (*db.DB, error) { return db.OpenPostgres(t.Context(), u, db.Options{}) })
	})
}

// TestForeignText: whatever strangers call their packages, paths and media types,
// an image can be stored and its packages can be looked up.
func TestForeignText(t *testing.T) {
	d := dbtest.OpenPostgres(t, db.Options{})
	ctx := t.Context()
	for i, nasty := range []string{"zero\x00byte", "not \xff\xfe UTF-8", strings.Repeat("long", 2000), "'; DROP TABLE event; --", "\\x00", "\u2028"} {
		digest := gatehouse.DigestOf(fmt.Append(nil, i))
		p := gatehouse.Package{Type: "npm", Name: nasty, Version: nasty}
		err := d.Write(ctx, func(tx *db.Tx) error {
			repo, err := tx.EnsureRepo(ctx, "a")
			if err != nil {
				return err
			}
			m := db.NewManifest{RepoID: repo, Manifest: gatehouse.Manifest{Body: []byte(nasty), PushedBy: nasty, Descriptor: gatehouse.Descriptor{
				Digest: digest, MediaType: nasty, ArtifactType: nasty, Annotations: map[string]string{nasty: nasty}}}}
			if _, _, err := tx.AddManifest(ctx, m); err != nil {
				return err
			}
			layer, err := tx.SaveLayer(ctx, gatehouse.LayerInventory{DiffID: digest, Blob: digest, Indexer: "x",
				Sets: []gatehouse.PackageSet{{Path: nasty, Extractor: "npm", Packages: []gatehouse.Package{p}}}})
			if err != nil {
				return err
			}
			fresh, err := tx.UnmatchedPackages(ctx, []int64{layer}, nasty)
			if err != nil || len(fresh) != 1 {
				return fmt.Errorf("%d fresh packages: %w", len(fresh), err)
			}
			image, err := tx.SaveImage(ctx, db.Image{Digest: digest, Indexer: "x", OSSpace: nasty[:min(len(nasty), 100)], Config: []byte(nasty), Reasons: []string{nasty}}, []int64{layer}, nil)
			if err != nil {
				return err
			}
			for id := range fresh {
				if err := tx.NamePackage(ctx, id, "", db.Name{Space: "npm", Name: nasty}); err != nil {
					return err
				}
				if _, err := tx.ReplaceFindings(ctx, db.PackageFindings{PackageID: id, Findings: []gatehouse.Finding{{ID: nasty[:min(len(nasty), 100)], Package: p}}}); err != nil {
					return err
				}
			}
			if err := tx.CountImage(ctx, image, nasty[:min(len(nasty), 100)], 0); err != nil {
				return err
			}
			if _, err := tx.PackagesNamed(ctx, db.Name{Space: nasty, Name: nasty}); err != nil {
				return err
			}
			if _, err := tx.AddJob(ctx, "k", fmt.Sprint(i), []byte(nasty), time.Time{}); err != nil {
				return err
			}
			if err := tx.AddEvent(ctx, gatehouse.Event{Type: "x", Actor: nasty, Payload: []byte(nasty)}); err != nil {
				return err
			}
			return tx.AddAudit(ctx, gatehouse.Actor{Name: nasty, Addr: nasty}, nasty, nasty, nasty)
		})
		if err != nil {
			t.Errorf("%.20q: %v", nasty, err)
		}
		err = d.Get(ctx, func(tx *db.Tx) error {
			m, err := tx.Manifest(ctx, "a", digest)
			if err == nil && string(m.Body) != nasty {
				t.Errorf("%.20q: the body is %.20q", nasty, m.Body)
			}
			return err
		})
		if err != nil {
			t.Errorf("%.20q: %v", nasty, err)
		}
		err = d.Get(ctx, func(tx *db.Tx) error { _, err := tx.Manifest(ctx, gatehouse.Repo(nasty), digest); return err })
		if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			t.Errorf("a repository of that name: %v", err)
		}
	}
}

// TestPostgresErrors are told apart as those of SQLite are.
func TestPostgresErrors(t *testing.T) {
	d := dbtest.OpenPostgres(t, db.Options{})
	err := d.Write(t.Context(), func(tx *db.Tx) error { return tx.LinkBlob(t.Context(), 404, 404, time.Time{}) })
	if gatehouse.CodeOf(err) != gatehouse.CodeInternal {
		t.Errorf("a broken reference: %v has code %s", err, gatehouse.CodeOf(err))
	}
	before := d.Statements()
	if _, err := db.SelectNumber(t.Context(), d, "SELECT $1::int", 7); err != nil {
		t.Fatal(err)
	}
	if got := d.Statements() - before; got != 1 {
		t.Errorf("one statement counts as %d", got)
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
}

// TestHotPostgresQueriesUseIndexes: where there is an index to use.
func TestHotPostgresQueriesUseIndexes(t *testing.T) {
	d := dbtest.OpenPostgres(t, db.Options{})
	ctx := t.Context()
	plans, err := db.PostgresPlans(ctx, d, func(tx *db.Tx) { hotQueries(ctx, tx) })
	if err != nil {
		t.Fatal(err)
	}
	if len(plans) < 20 {
		t.Fatalf("only %d queries were planned", len(plans))
	}
	for query, plan := range plans {
		if text := strings.Join(plan, "\n  "); strings.Contains(text, "Seq Scan") {
			t.Errorf("%s\n  %s", query, text)
		}
	}
}
