package outside

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
)

// How long things are believed, and how often they are asked for.
const (
	keyLife        = 10 * time.Hour // a key in a key service may be rotated
	repositoryLife = time.Hour      // a trusted root may change
	againAfter     = Period         // what failed is not asked for again before
	entriesMax     = 1_000
)

// Period is how often Refresh should be called.
const Period = 10 * time.Second

// Cluster reads objects of the cluster that Gatehouse runs in. It answers from what it
// knows, at once. Errors: CodeNotFound, CodeDenied where it may not.
type Cluster interface {
	// Namespace is Gatehouse's own.
	Namespace() string
	// Secret is of any namespace: those with logins lie beside what is judged.
	Secret(namespace, name string) (map[string][]byte, error)
	ConfigMap(namespace, name string) (map[string]string, error)
}

// Source is what a Kept asks: a [Reader].
type Source interface {
	Key(uri string) (string, error)
	Remote(url, sum string) ([]byte, error)
	// Vouched returns a trusted root, and until when its repository vouches for it:
	// whoever keeps that from answering must not keep what it revoked alive for ever.
	Vouched(t cip.TUF) ([]byte, time.Time, error)
}

// Kept answers from what was read before, also before a restart, and asks again in
// the background. It is safe for concurrent use.
type Kept struct {
	source Source
	dir    string
	now    func() time.Time
	log    *slog.Logger

	turn    atomic.Int64
	asks    atomic.Int64 // questions so far
	cluster atomic.Pointer[Cluster]
	mu      sync.Mutex
	entries map[string]*entry
}

// ask reads something, and tells until when it counts; zero: for ever.
type ask func() ([]byte, time.Time, error)

// entry is one thing that a policy refers to.
type entry struct {
	mu       sync.Mutex // held while it is asked for
	kind     string
	name     string
	life     time.Duration // 0: it cannot change
	ask      ask
	asked    atomic.Int64 // the last question
	data     []byte
	until    time.Time // data counts no longer; zero: however old it is
	at       time.Time // when data was read; zero: never
	tried    time.Time
	err      error // of the last try
	answered bool  // somebody got data or err, so that a change is one for them
	told     bool  // data is what they got
}

// NewKept returns a Kept over source that keeps copies in the directory dir, "" for
// none. now is time.Now in a program.
func NewKept(source Source, dir string, now func() time.Time, log *slog.Logger) *Kept {
	return &Kept{source: source, dir: dir, now: now, log: log, entries: map[string]*entry{}}
}

// Turn counts how often something that was answered has changed: policies that were
// made of it are then made anew.
func (k *Kept) Turn() int64 { return k.turn.Load() }

// Changed says that objects of the cluster have changed.
func (k *Kept) Changed() { k.turn.Add(1) }

// SetCluster makes Secrets and ConfigMaps readable; nil takes that back.
func (k *Kept) SetCluster(c Cluster) {
	if c == nil {
		k.cluster.Store(nil)
	} else {
		k.cluster.Store(&c)
	}
	k.Changed()
}

// PullSecret returns a Secret with logins of a namespace. CodeUnavailable: there is no
// cluster.
func (k *Kept) PullSecret(namespace, name string) (map[string][]byte, error) {
	c := k.cluster.Load()
	if c == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "there is no cluster to read Secret %s from", clip(name))
	}
	return (*c).Secret(namespace, name)
}

// Outside returns what policies can refer to now.
func (k *Kept) Outside() cip.Outside {
	o := cip.Outside{Key: k.key, Remote: k.remote, Repository: k.repository}
	if c := k.cluster.Load(); c != nil {
		o.Secret, o.ConfigMap, o.Namespace, o.PullSecrets = (*c).Secret, (*c).ConfigMap, (*c).Namespace(), true
	}
	return o
}

func (k *Kept) key(uri string) (string, error) {
	b, err := k.get("key", uri, keyLife, func() ([]byte, time.Time, error) {
		text, err := k.source.Key(uri)
		return []byte(text), time.Time{}, err
	})
	return string(b), err
}

func (k *Kept) remote(url, sum string) ([]byte, error) {
	b, err := k.get("remote", url+" "+sum, 0, func() ([]byte, time.Time, error) {
		b, err := k.source.Remote(url, sum)
		return b, time.Time{}, err
	})
	if err == nil && sumOf(b) != sum { // the copy on disk is not ours alone to write
		return nil, gatehouse.Errorf(gatehouse.CodeInternal, "the copy of %s that was kept is damaged", clip(url))
	}
	return b, err
}

func (k *Kept) repository(t cip.TUF) ([]byte, error) {
	if len(t.Archive) > 0 { // nothing to wait for, and it ends by its own metadata
		b, _, err := k.source.Vouched(t)
		return b, err
	}
	name := t.Mirror + " " + t.Targets + " " + t.Target + " " + sumOf(t.Root)
	return k.get("repository", name, repositoryLife, func() ([]byte, time.Time, error) { return k.source.Vouched(t) })
}

// get returns what is known, however old it may be, and asks only where nothing is.
func (k *Kept) get(kind, name string, life time.Duration, ask ask) ([]byte, error) {
	e, err := k.entry(kind, name, life, ask)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.at.IsZero() && e.tried.IsZero() {
		k.restore(e)
	}
	e.answered = true
	defer func() { e.told = k.usable(e) }()
	if k.usable(e) {
		return e.data, nil
	}
	// Only who is first waits for an answer. Afterwards it is Refresh that asks, so
	// that decisions do not wait for what does not answer.
	if e.tried.IsZero() {
		k.try(e)
	}
	switch {
	case k.usable(e):
		return e.data, nil
	case e.err != nil:
		return nil, e.err
	}
	return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "what is known of it is too old")
}

// Failing reports whether something that was asked for is not known now and may be
// later.
func (k *Kept) Failing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.entries {
		e.mu.Lock()
		failing := !k.usable(e)
		e.mu.Unlock()
		if failing {
			return true
		}
	}
	return false
}

func (k *Kept) usable(e *entry) bool {
	return !e.at.IsZero() && (e.until.IsZero() || k.now().Before(e.until))
}

func (k *Kept) entry(kind, name string, life time.Duration, ask ask) (*entry, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := kind + " " + name
	if e := k.entries[id]; e != nil {
		e.asked.Store(k.asks.Add(1))
		return e, nil
	}
	if len(k.entries) >= entriesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "policies refer to more than %d things", entriesMax).WithHint("delete policies that are not needed")
	}
	e := &entry{kind: kind, name: name, life: life, ask: ask}
	e.asked.Store(k.asks.Add(1))
	k.entries[id] = e
	return e, nil
}

// try asks for e, whose lock is held, and reports whether its answer is another than
// before.
func (k *Kept) try(e *entry) bool {
	e.tried = k.now()
	data, until, err := e.ask()
	if e.err = err; err != nil {
		return false
	}
	changed := e.at.IsZero() || string(e.data) != string(data)
	e.data, e.at, e.until = data, e.tried, until
	k.save(e)
	return changed
}

// Mark is a moment for [Kept.Keep].
func (k *Kept) Mark() int64 { return k.asks.Load() }

// Keep forgets what nobody has asked for since that moment. Whoever has just read all
// policies that are in force calls it, so that what others referred to, and what was
// refused, is not asked for for ever.
func (k *Kept) Keep(mark int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, e := range k.entries {
		if e.asked.Load() <= mark {
			delete(k.entries, id)
		}
	}
}

// Refresh asks once for everything that is due.
func (k *Kept) Refresh() {
	k.mu.Lock()
	var due []*entry
	for _, e := range k.entries {
		due = append(due, e)
	}
	k.mu.Unlock()
	for _, e := range due {
		k.refresh(e)
	}
}

func (k *Kept) refresh(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.answered {
		return
	}
	now, usable := k.now(), k.usable(e)
	wait := againAfter
	if usable {
		wait = max(againAfter, e.life/20) // what stands in is not asked for as often
	}
	changed := false
	if old := e.life > 0 && now.Sub(e.at) >= e.life; (!usable || old) && now.Sub(e.tried) >= wait {
		if changed = k.try(e); e.err != nil {
			k.log.Warn("what a policy refers to cannot be read", "kind", e.kind, "name", clip(e.name), "error", e.err, "known", !e.at.IsZero(), "read", e.at)
		}
	}
	// What has become too old to count is a change, too.
	if changed || e.told != k.usable(e) {
		e.told = k.usable(e)
		k.turn.Add(1)
	}
}

// copied is an entry on disk.
type copied struct {
	Kind, Name string
	At, Until  time.Time
	Data       []byte
}

func (k *Kept) path(e *entry) string {
	return filepath.Join(k.dir, e.kind+"-"+sumOf([]byte(e.name))[:32]+".json")
}

// save writes a copy. That it fails costs only what a restart would have saved.
func (k *Kept) save(e *entry) {
	if k.dir == "" {
		return
	}
	b, err := json.Marshal(copied{e.kind, e.name, e.at, e.until, e.data})
	if err == nil {
		err = os.MkdirAll(k.dir, 0o700)
	}
	path := k.path(e)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		k.log.Warn("what a policy refers to cannot be kept", "name", clip(e.name), "error", err)
	}
}

// restore reads the copy of an earlier run.
func (k *Kept) restore(e *entry) {
	if k.dir == "" {
		return
	}
	b, err := os.ReadFile(k.path(e))
	var c copied
	if err != nil || json.Unmarshal(b, &c) != nil || c.Kind != e.kind || c.Name != e.name || c.At.After(k.now()) {
		return
	}
	if e.kind == "remote" && !strings.HasSuffix(e.name, " "+sumOf(c.Data)) {
		return
	}
	e.data, e.at, e.until = c.Data, c.At, c.Until
}
