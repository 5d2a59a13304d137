package gather

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// MemoryOptions say how long what was found out counts. Zero fields have the
// defaults that are named.
type MemoryOptions struct {
	// Fresh is how long another registry's answer about a digest is taken for what it
	// would say now; 1 minute. Our own is asked each time, or counts so long where it
	// says that nothing has changed (Versions).
	Fresh time.Duration
	// Negative is as Fresh for "nothing is attached", and how long a repository that
	// did not answer is not asked again; 10 seconds. One that says for how long (an error
	// with a method RetryAfter) is left alone so long, 2 minutes at most.
	Negative time.Duration
	// MaxStale is how old an answer may be that stands in for one that cannot be had
	// now. 0: none does.
	MaxStale time.Duration
	// Budget is how long one question to another registry is waited for, 2 seconds. It
	// goes on behind, for whoever asks next.
	Budget time.Duration
	// Bytes bounds what is remembered, about; 32 MiB.
	Bytes int
	// Now is the clock; nil is the machine's.
	Now func() time.Time
	// Count is told where each answer came from: "asked", "remembered", "stale", or
	// "none".
	Count func(from string)
}

const (
	freshDefault    = time.Minute
	negativeDefault = 10 * time.Second
	budgetDefault   = 2 * time.Second
	bytesDefault    = 32 << 20
	// ownBudget is how long our own rows are waited for. It ends before timeoutDefault,
	// so that there is time for what is remembered.
	ownBudget = 4 * time.Second
	// ownPause is how long our own rows are not asked again after they failed.
	ownPause = time.Second
	// flightTime bounds a question that nobody may be waiting for any more.
	flightTime = 15 * time.Second
	// flightsMax bounds the questions that are asked at once, perRegistryMax those to
	// one other registry; more of these wait for each other.
	flightsMax     = 1024
	perRegistryMax = 16
	// awayMax bounds the repositories that are known not to answer.
	awayMax = 10_000
	// awayLimit is how long one is left alone at most, whatever it asks for.
	awayLimit = 2 * time.Minute
	// shareMax is the part of Bytes that one answer may take.
	shareMax = 16
)

// Memory remembers what sources have said about digests, so that many requests about
// one image ask once, and decisions go on while a registry does not answer. What it
// gives out that is not of now is marked by its age. It never remembers what a tag
// names, and nothing that a policy made of an answer. Safe for concurrent use.
type Memory struct {
	o MemoryOptions

	mu      sync.Mutex
	known   map[question]*list.Element // of answer
	order   *list.List                 // newest use first
	bytes   int
	flights map[question]*flight
	away    map[string]absence // by repository
	slots   map[string]*slots  // by registry
}

// question names what is asked, by a sha256 over all that the answer depends on.
type question [sha256.Size]byte

type answer struct {
	question question
	at       time.Time
	value    any
	negative bool
	version  string // of what it follows from; "": not known
	epoch    int64  // in which that version was told; noEpoch: it cannot be told
	weight   int
}

// noEpoch is none of [Versions].
const noEpoch = -1

// absence is a repository that did not answer.
type absence struct {
	until time.Time
	err   error
}

// slots are taken while a registry is asked.
type slots struct {
	free  chan struct{}
	users int
}

// NewMemory makes a Memory.
func NewMemory(o MemoryOptions) *Memory {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.Fresh, freshDefault)
	set(&o.Negative, negativeDefault)
	set(&o.Budget, budgetDefault)
	if o.Bytes <= 0 {
		o.Bytes = bytesDefault
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Count == nil {
		o.Count = func(string) {}
	}
	return &Memory{
		o: o, known: map[question]*list.Element{}, order: list.New(), flights: map[question]*flight{},
		away: map[string]absence{}, slots: map[string]*slots{},
	}
}

// Known tells how many answers are remembered, and about how many bytes they take.
func (m *Memory) Known() (answers, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.known), m.bytes
}

// asked is one question with all that tells how it may be answered.
type asked[T any] struct {
	what    string // "verify", "resolve"
	ref     gatehouse.Ref
	need    *gatehouse.Need // that the answer depends on; nil: none
	foreign bool
	// about a digest: the answer may be remembered. always: it never changes.
	digest, always bool
	ask            func(context.Context) (T, error)
	weigh          func(T) int
	nothing        func(T) bool // nil: every answer is something
	// versions tell the state of what the answer follows from. Nil: nothing does.
	versions Versions
	version  string // what versions have told, before ask
	epoch    int64  // and in which epoch that was so
}

func (a asked[T]) place() string { return a.ref.Name() }

// key covers everything that the answer depends on.
func (a asked[T]) key() question {
	parts := struct {
		What, Ref string
		Kind      gatehouse.NeedKind
		Predicate string
		Through   gatehouse.Digest
		Authority gatehouse.Authority
		Namespace string // whose logins are used
	}{What: a.what, Ref: a.ref.String()}
	if a.digest {
		parts.Ref = a.ref.Name() + "@" + string(a.ref.Digest)
	}
	if a.need != nil {
		parts.Kind, parts.Predicate, parts.Through, parts.Authority = a.need.Kind, a.need.Predicate, a.need.Through, a.need.Authority
	}
	if a.need != nil && slices.ContainsFunc(a.need.Authority.Sources, func(s gatehouse.SignatureSource) bool { return len(s.Secrets) > 0 }) {
		parts.Namespace = a.need.Namespace
	}
	b, err := json.Marshal(parts)
	if err != nil {
		panic(err) // texts, numbers and lists of them
	}
	return sha256.Sum256(b)
}

// remember answers a question: from memory while that is fresh, else by asking, and
// where that fails for the time being from memory again. asOf is when the answer was
// found out, where that is not now.
func remember[T any](ctx context.Context, m *Memory, a asked[T]) (out T, asOf time.Time, err error) {
	key := a.key()
	a.epoch = a.epochNow()
	if v, ok := recall(m, key, a); ok {
		m.o.Count("remembered")
		return v, time.Time{}, nil
	}
	if err = m.isAway(a.place()); err == nil && a.versions != nil {
		a.version, err = m.versionOf(ctx, a.versions, a.ref)
		if v, ok := unchanged[T](m, key, a.version, a.epoch); ok {
			m.o.Count("remembered")
			return v, time.Time{}, nil
		}
	}
	if err == nil {
		out, err = fly(ctx, m, key, a)
	}
	if err == nil {
		m.o.Count("asked")
		return out, time.Time{}, nil
	}
	if passing(err) && a.digest {
		if v, at, ok := stale[T](m, key); ok {
			m.o.Count("stale")
			return v, at, nil
		}
	}
	m.o.Count("none")
	return out, time.Time{}, err
}

// versionOf asks what an answer follows from. An answer that says no is none here:
// the question itself will hear it.
func (m *Memory) versionOf(ctx context.Context, versions Versions, ref gatehouse.Ref) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, ownBudget)
	defer cancel()
	version, err := versions.Version(ctx, ref)
	if err != nil && passing(err) {
		return "", err
	}
	return version, nil
}

// epochNow is the epoch of what the answer follows from.
func (a asked[T]) epochNow() int64 {
	if a.versions == nil {
		return noEpoch
	}
	epoch, ok := a.versions.Epoch()
	if !ok {
		return noEpoch
	}
	return epoch
}

// recall is an answer that counts without anybody being asked, not even whether
// something has changed.
func recall[T any](m *Memory, key question, a asked[T]) (out T, ok bool) {
	switch {
	case a.foreign && a.digest:
		return fresh[T](m, key, a.always)
	case a.epoch != noEpoch:
		return still[T](m, key, func(known *answer) bool { return known.epoch == a.epoch })
	}
	return out, false
}

// unchanged is an answer that follows from what is still so, as was told in an epoch.
func unchanged[T any](m *Memory, key question, version string, epoch int64) (out T, ok bool) {
	return still[T](m, key, func(known *answer) bool {
		if known.version != version {
			return false
		}
		known.epoch = epoch
		return true
	})
}

// still is an answer that follows from what is the same, if that is so. It counts for
// Fresh: signatures also end with time.
func still[T any](m *Memory, key question, same func(*answer) bool) (out T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.known[key]
	if e == nil {
		return out, false
	}
	a := e.Value.(*answer)
	if age := m.o.Now().Sub(a.at); age >= m.o.Fresh || age < 0 || a.version == "" || !same(a) {
		return out, false
	}
	m.order.MoveToFront(e)
	out, ok = a.value.(T)
	return out, ok
}

// passing reports whether an error says nothing about the image: another moment it
// may be otherwise. What denies, or says that there is none, is an answer.
func passing(err error) bool {
	var e *gatehouse.Error
	if !errors.As(err, &e) {
		return true // of the database, or a time that is over
	}
	if e == nil { // an error that a source has made of nothing
		return true
	}
	return e.Code == gatehouse.CodeUnavailable || e.Code == gatehouse.CodeTooMany || e.Code == gatehouse.CodeInternal
}

func fresh[T any](m *Memory, key question, always bool) (out T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.known[key]
	if e == nil {
		return out, false
	}
	a := e.Value.(*answer)
	age, limit := m.o.Now().Sub(a.at), m.o.Fresh
	if a.negative {
		limit = m.o.Negative
	}
	if !always && (age >= limit || age < 0) {
		return out, false
	}
	m.order.MoveToFront(e)
	out, ok = a.value.(T)
	return out, ok
}

// stale is an answer of before. That nothing was attached then is none: it is better
// to say that the registry does not answer.
func stale[T any](m *Memory, key question) (out T, at time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.known[key]
	if e == nil {
		return out, at, false
	}
	a := e.Value.(*answer)
	if age := m.o.Now().Sub(a.at); a.negative || age > m.o.MaxStale || age < 0 {
		return out, at, false
	}
	m.order.MoveToFront(e)
	out, ok = a.value.(T)
	return out, a.at, ok
}

func (m *Memory) isAway(place string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.away[place]
	if !ok {
		return nil
	}
	if m.o.Now().After(a.until) {
		delete(m.away, place)
		return nil
	}
	return a.err
}

// keep notes what came of a question that was sent at a time.
func keep[T any](m *Memory, key question, a asked[T], sent time.Time, v T, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		delete(m.away, a.place())
		if a.digest {
			m.put(&answer{question: key, at: sent, value: v, negative: a.nothing != nil && a.nothing(v), version: a.version, epoch: a.epoch, weight: a.weigh(v) + answerWeight})
		}
	case passing(err):
		if len(m.away) >= awayMax {
			clear(m.away)
		}
		pause := m.o.Negative
		if !a.foreign {
			pause = ownPause
		} else if wants := interface{ RetryAfter() time.Duration }(nil); errors.As(err, &wants) {
			pause = min(max(pause, wants.RetryAfter()), awayLimit)
		}
		m.away[a.place()] = absence{m.o.Now().Add(pause), err}
	default: // an answer: what was known before is no longer so
		if e := m.known[key]; e != nil {
			m.drop(e)
		}
	}
}

// answerWeight is what an answer takes besides its value.
const answerWeight = 300

// put is called with mu held.
func (m *Memory) put(a *answer) {
	if e := m.known[a.question]; e != nil {
		m.drop(e)
	}
	if a.weight > m.o.Bytes/shareMax {
		return
	}
	m.known[a.question] = m.order.PushFront(a)
	m.bytes += a.weight
	for m.bytes > m.o.Bytes {
		m.drop(m.order.Back())
	}
}

// drop is called with mu held.
func (m *Memory) drop(e *list.Element) {
	a := m.order.Remove(e).(*answer)
	delete(m.known, a.question)
	m.bytes -= a.weight
}
