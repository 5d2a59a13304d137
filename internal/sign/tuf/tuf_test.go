package tuf_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	sigtuf "github.com/sigstore/sigstore-go/pkg/tuf"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tuf"
)

type key struct {
	ed25519.PrivateKey
	opened int
}

func (k *key) Signer() (crypto.Signer, error) { k.opened++; return k.PrivateKey, nil }

func newKey(t *testing.T) *key {
	_, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &key{PrivateKey: priv}
}

// mirror serves files.
type mirror struct {
	sync.Mutex
	files map[string][]byte
	url   string
}

func newMirror(t *testing.T) *mirror {
	m := &mirror{files: map[string][]byte{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.Lock()
		data, has := m.files[strings.TrimPrefix(r.URL.Path, "/tuf/")]
		m.Unlock()
		if !has {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(srv.Close)
	m.url = srv.URL + "/tuf"
	return m
}

// publish publishes and adds what came of it.
func (m *mirror) publish(t *testing.T, r tuf.Repository) map[string][]byte {
	t.Helper()
	r.Files = m.files
	add, err := r.Publish()
	if err != nil {
		t.Fatal(err)
	}
	m.Lock()
	defer m.Unlock()
	maps.Copy(m.files, add)
	return add
}

func content(root string) map[string][]byte {
	return map[string][]byte{tuf.TrustedRootName: []byte(root), tuf.SigningConfigName: []byte("{}")}
}

func TestClientsFollow(t *testing.T) {
	m := newMirror(t)
	root, targets, online := newKey(t), newKey(t), newKey(t)
	r := tuf.Repository{Root: []tuf.Key{root}, Targets: targets, Online: online, Content: content("one"), Now: time.Now()}
	m.publish(t, r)
	first := bytes.Clone(m.files["1.root.json"])
	dir := t.TempDir()
	check := func(what, want string) {
		t.Helper()
		got, config, err := tuf.Fetch(context.Background(), http.DefaultTransport, m.url, first)
		if err != nil || string(got) != want || string(config) != "{}" {
			t.Fatalf("%s: Fetch() = %q, %q, %v, want %q", what, got, config, err, want)
		}
		// Sigstore's own client, with a cache that goes on from before.
		c, err := sigtuf.New(&sigtuf.Options{Root: first, RepositoryBaseURL: m.url, CachePath: dir})
		if err != nil {
			t.Fatalf("%s: sigstore-go: %v", what, err)
		}
		if got, err := c.GetTarget(tuf.TrustedRootName); err != nil || string(got) != want {
			t.Fatalf("%s: sigstore-go got %q, %v, want %q", what, got, err, want)
		}
	}
	check("at first", "one")
	if add := m.publish(t, r); len(add) != 0 {
		t.Errorf("publishing the same again added %d files", len(add))
	}
	rootOpened, targetsOpened := root.opened, targets.opened
	r.Now = r.Now.Add(3 * 24 * time.Hour)
	if add := m.publish(t, r); len(add) != 1 || add["timestamp.json"] == nil {
		t.Errorf("after three days %d files were added, want the timestamp", len(add))
	}
	if root.opened != rootOpened || targets.opened != targetsOpened {
		t.Error("keys that are kept closed were opened for a timestamp")
	}
	check("after a renewal", "one")
	r.Content = content("two")
	m.publish(t, r)
	check("after a change", "two")
	second := newKey(t)
	r.Root, r.Targets, r.Online = append(r.Root, second), newKey(t), newKey(t)
	m.publish(t, r)
	check("after new keys", "two")
	third := newKey(t)
	r.Root = append(r.Root, third)
	m.publish(t, r)
	check("after another new root key", "two")
	if _, v := tuf.NewestRoot(m.files); v != 3 {
		t.Errorf("newest root is %d, want 3", v)
	}
}

func TestFetchRefuses(t *testing.T) {
	m := newMirror(t)
	r := tuf.Repository{Root: []tuf.Key{newKey(t)}, Targets: newKey(t), Online: newKey(t), Content: content("one"), Now: time.Now()}
	m.publish(t, r)
	good := maps.Clone(m.files)
	other := newMirror(t)
	r2 := r
	r2.Root, r2.Targets, r2.Online = []tuf.Key{newKey(t)}, newKey(t), newKey(t)
	other.publish(t, r2)
	fetch := func(root []byte) error {
		_, _, err := tuf.Fetch(context.Background(), http.DefaultTransport, m.url, root)
		return err
	}
	for _, c := range []struct {
		name string
		do   func() []byte // returns the root
		want gatehouse.Code
	}{
		{"another repository's root", func() []byte { return other.files["1.root.json"] }, gatehouse.CodeDenied},
		{"no root", func() []byte { return []byte("{}") }, gatehouse.CodeInvalid},
		{"a changed target", func() []byte {
			for name := range m.files {
				if strings.HasSuffix(name, tuf.TrustedRootName) {
					m.files[name] = []byte("two")
				}
			}
			return good["1.root.json"]
		}, gatehouse.CodeDenied},
		{"a timestamp of another key", func() []byte { m.files["timestamp.json"] = other.files["timestamp.json"]; return good["1.root.json"] }, gatehouse.CodeDenied},
		{"expired", func() []byte {
			r := r
			r.Now = time.Now().Add(-30 * 24 * time.Hour)
			m.files = map[string][]byte{}
			m.publish(t, r)
			return m.files["1.root.json"]
		}, gatehouse.CodeDenied},
		{"nothing there", func() []byte { m.files = map[string][]byte{}; return good["1.root.json"] }, gatehouse.CodeUnavailable},
		{"root key taken by a stranger", func() []byte {
			// The stranger's second root is signed by itself only.
			s := r
			s.Root = []tuf.Key{newKey(t)}
			s.Files = maps.Clone(good)
			add, err := s.Publish()
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(m.files, add)
			return good["1.root.json"]
		}, gatehouse.CodeDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.files = maps.Clone(good)
			err := fetch(c.do())
			if gatehouse.CodeOf(err) != c.want {
				t.Errorf("Fetch() = %v (%s), want %s", err, gatehouse.CodeOf(err), c.want)
			}
		})
	}
}

// TestOlderIsRefused: a client with a directory does not go back.
func TestOlderIsRefused(t *testing.T) {
	m := newMirror(t)
	r := tuf.Repository{Root: []tuf.Key{newKey(t)}, Targets: newKey(t), Online: newKey(t), Content: content("one"), Now: time.Now()}
	m.publish(t, r)
	old := maps.Clone(m.files)
	r.Content = content("two")
	m.publish(t, r)
	c := tuf.Client{Mirror: m.url, Root: m.files["1.root.json"], Transport: http.DefaultTransport, Dir: t.TempDir()}
	if got, err := c.Fetch(context.Background()); err != nil || string(got.TrustedRoot) != "two" {
		t.Fatalf("Fetch() = %q, %v", got.TrustedRoot, err)
	}
	m.files = old
	if got, err := c.Fetch(context.Background()); err == nil && string(got.TrustedRoot) != "two" {
		t.Errorf("a client went back to %q", got.TrustedRoot)
	}
}

// TestUntilWhenItVouches: the metadata that expires first says until when.
func TestUntilWhenItVouches(t *testing.T) {
	const day = 24 * time.Hour
	m := newMirror(t)
	now := time.Now().Truncate(time.Second)
	r := tuf.Repository{Root: []tuf.Key{newKey(t)}, Targets: newKey(t), Online: newKey(t), Content: content("one"), Now: now}
	c := tuf.Client{Mirror: m.url, Transport: http.DefaultTransport}
	expires := func(want time.Time) {
		t.Helper()
		c.Root = m.files["1.root.json"]
		if got, err := c.Fetch(t.Context()); err != nil || !got.Expires.Equal(want) {
			t.Errorf("expires %s, %v, want %s", got.Expires, err, want)
		}
	}
	m.publish(t, r)
	expires(now.Add(7 * day)) // the timestamp
	// A root that nobody renewed, under a timestamp of today.
	m.files = map[string][]byte{}
	r.Now = now.Add(-5*365*day + day)
	m.publish(t, r)
	r.Now = now
	m.publish(t, r)
	delete(m.files, "2.root.json")
	expires(now.Add(day))
}
