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
	// repositoryMax is how long a trusted root counts that could not be asked for
	// again: whoever keeps its repository from answering must not keep what it
	// revokes alive for ever.
	repositoryMax = 7 * 24 * time.Hour
	againAfter    = Period // what failed is not asked for again before
	entriesMax    = 1_000
)

// Period is how often Refresh should be called.
const Period = 10 * time.Second

// Cluster reads objects of the cluster that Gatehouse runs in.
type Cluster interface {
	// Namespace is Gatehouse's own.
	Namespace() string
	Secret(namespace, name string) (map[string][]byte, error)
	ConfigMap(namespace, name string) (map[string]string, error)
}

// Source is what a Kept asks: a [Reader].
type Source interface {
	Key(uri string) (string, error)
	Remote(url, sum string) ([]byte, error)
	Repository(t cip.TUF) ([]byte, error)
}

// Kept answers from what was read before, also before a restart, and asks again in
// the background. It is safe for concurrent use.
type Kept struct {
	source Source
	dir    string
	now    func() time.Time
	log    *slog.Logger

	turn    atomic.Int64
	cluster atomic.Pointer[Cluster]
	mu      sync.Mutex
	entries map[string]*entry
}

// entry is one thing that a policy refers to.
type entry struct {
	mu       sync.Mutex // held while it is asked for
	kind     string
	name     string
	life     time.Duration // 0: it cannot change
	max      time.Duration // how old it may be; 0: however old
	ask      func() ([]byte, error)
	data     []byte
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

// Outside returns what policies can refer to now.
func (k *Kept) Outside() cip.Outside {
	o := cip.Outside{Key: k.key, Remote: k.remote, Repository: k.repository}
	if c := k.cluster.Load(); c != nil {
		o.Secret, o.ConfigMap, o.Namespace = (*c).Secret, (*c).ConfigMap, (*c).Namespace()
	}
	return o
}

func (k *Kept) key(uri string) (string, error) {
	b, err := k.get("key", uri, keyLife, 0, func() ([]byte, error) {
		text, err := k.source.Key(uri)
		return []byte(text), err
	})
	return string(b), err
}

func (k *Kept) remote(url, sum string) ([]byte, error) {
	b, err := k.get("remote", url+" "+sum, 0, 0, func() ([]byte, error) { return k.source.Remote(url, sum) })
	if err == nil && sumOf(b) != sum { // the copy on disk is not ours alone to write
		return nil, gatehouse.Errorf(gatehouse.CodeInternal, "the copy of %s that was kept is damaged", clip(url))
	}
	return b, err
}

func (k *Kept) repository(t cip.TUF) ([]byte, error) {
	if len(t.Archive) > 0 { // nothing to wait for, and it ends by its own metadata
		return k.source.Repository(t)
	}
	name := t.Mirror + " " + t.Targets + " " + t.Target + " " + sumOf(t.Root)
	return k.get("repository", name, repositoryLife, repositoryMax, func() ([]byte, error) { return k.source.Repository(t) })
}

// get returns what is known, however old it may be, and asks only where nothing is.
func (k *Kept) get(kind, name string, life, max time.Duration, ask func() ([]byte, error)) ([]byte, error) {
	e, err := k.entry(kind, name, life, max, ask)
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
	return !e.at.IsZero() && (e.max == 0 || k.now().Sub(e.at) < e.max)
}

func (k *Kept) entry(kind, name string, life, max time.Duration, ask func() ([]byte, error)) (*entry, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := kind + " " + name
	if e := k.entries[id]; e != nil {
		return e, nil
	}
	if len(k.entries) >= entriesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "policies refer to more than %d things", entriesMax).WithHint("restart the server to forget those of policies that are gone")
	}
	e := &entry{kind: kind, name: name, life: life, max: max, ask: ask}
	k.entries[id] = e
	return e, nil
}

// try asks for e, whose lock is held, and reports whether its answer is another than
// before.
func (k *Kept) try(e *entry) bool {
	e.tried = k.now()
	data, err := e.ask()
	if e.err = err; err != nil {
		return false
	}
	changed := e.at.IsZero() || string(e.data) != string(data)
	e.data, e.at = data, e.tried
	k.save(e)
	return changed
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
	At         time.Time
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
	b, err := json.Marshal(copied{e.kind, e.name, e.at, e.data})
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
	e.data, e.at = c.Data, c.At
}
