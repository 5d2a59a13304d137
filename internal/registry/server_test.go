package registry_test

import (
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/auth"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
	"github.com/gatehouse-dev/gatehouse/internal/registry/registrytest"
)

// house is a registry as the product wires it: rows, bytes, accounts, HTTP.
type house struct {
	registrytest.Target
	content gatehouse.Content
	auth    *auth.Auth
	server  *httptest.Server
}

const (
	adminPassword  = "correct horse"
	readerPassword = "battery staple"
)

// setup changes the parts before they are put together.
type setup struct {
	auth     auth.Options
	stall    time.Duration
	page     int
	content  content.Options
	database func(t testing.TB) *db.DB     // SQLite by default
	store    func(t testing.TB) blob.Store // a directory by default
	wrap     func(gatehouse.Content) gatehouse.Content
}

func sqlite(t testing.TB) *db.DB {
	d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func directory(t testing.TB) blob.Store {
	store, err := disk.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func newHouse(t testing.TB, s setup) *house {
	t.Helper()
	if s.database == nil {
		s.database = sqlite
	}
	if s.store == nil {
		s.store = directory
	}
	dir, d, store := t.TempDir(), s.database(t), s.store(t)
	h := &house{content: content.New(d, store, s.content)}
	s.auth.Cost = bcrypt.MinCost
	h.auth = auth.New(d, s.auth)
	if _, _, err := h.auth.EnsureAdmin(t.Context(), dir, adminPassword); err != nil {
		t.Fatal(err)
	}
	addReader(t, d)
	served := h.content
	if s.wrap != nil {
		served = s.wrap(served)
	}
	h.server = httptest.NewServer(registry.New(registry.Options{
		Content: served, Auth: h.auth, Stall: s.stall, PageSize: s.page, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}))
	t.Cleanup(h.server.Close)
	h.Target = registrytest.Target{URL: h.server.URL, Client: h.server.Client(),
		Passwords: map[string]string{"admin": adminPassword, "reader": readerPassword}}
	return h
}

func addReader(t testing.TB, d *db.DB) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(readerPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.AddAccount(t.Context(), gatehouse.System("test"), db.Account{Name: "reader", Password: string(hash)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// host is where clients find the registry.
func (h *house) host() string { return h.server.Listener.Addr().String() }

// Each line is one database and one store of blobs.
func TestConformance(t *testing.T) {
	t.Run("sqlite, directory", func(t *testing.T) { registrytest.Run(t, newHouse(t, setup{}).Target) })
	t.Run("sqlite, memory", func(t *testing.T) {
		registrytest.Run(t, newHouse(t, setup{store: func(testing.TB) blob.Store { return mem.New() }}).Target)
	})
}
