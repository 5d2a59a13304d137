package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/operator"
	"github.com/gatehouse-dev/gatehouse/internal/outside"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// policies holds the policy set in force: the files that the configuration
// names, read at start, and the documents that came by the API.
type policies struct {
	db      *db.DB
	log     *slog.Logger
	noMatch gatehouse.Verdict
	files   []load.File
	unread  []decide.Problem // of files that could not be read
	mu      sync.Mutex       // compiles one at a time
	current atomic.Pointer[compiled]
	// told is the version that the rows last had, and at which epoch of the database.
	told atomic.Pointer[told]
	// own is the trusted root of the server's own Sigstore, which counts where a
	// policy names none. Nil: there is none.
	own atomic.Pointer[[]byte]
	// names are those of this server's registry; set once, before anything is served.
	names decide.Names
	// namesOf are those of another server, which may change; nil: names count.
	namesOf func() hosts
	// turn counts how often it has changed.
	turn atomic.Int64
	// cluster: there is one, whose documents count beside the others.
	cluster bool
	// outside answers what policies refer to, but what referred has of it.
	outside  *outside.Kept
	referred atomic.Pointer[referred]
	// seen is when the database last told which set is in force, Unix nanoseconds.
	seen     atomic.Int64
	maxStale time.Duration // how long a set counts that cannot be asked about
	now      func() time.Time
}

// policiesBudget is how long a review waits for the database to say which policies
// are in force.
const policiesBudget = 2 * time.Second

// latest is Set for a review: while the database does not answer, the set stands that
// was in force, until it is maxStale old. asOf is zero for the set of now. With an
// error and no such set it is the zero set, which denies.
func (p *policies) latest(ctx context.Context) (set decide.PolicySet, asOf time.Time, err error) {
	if set, ok := p.unchanged(); ok {
		p.seen.Store(p.now().UnixNano())
		return set, time.Time{}, nil
	}
	short, cancel := context.WithTimeout(ctx, policiesBudget)
	defer cancel()
	set, err = p.Set(short)
	if err == nil {
		p.seen.Store(p.now().UnixNano())
		return set, time.Time{}, nil
	}
	seen := time.Unix(0, p.seen.Load())
	c := p.current.Load()
	if age := p.now().Sub(seen); c == nil || c.own != p.own.Load() || age > p.maxStale || age < 0 {
		return decide.PolicySet{}, time.Time{}, err
	}
	return c.set, seen, err
}

// told is what the database has told.
type told struct{ epoch, version int64 }

// unchanged is the set of now where that is known without asking the database.
func (p *policies) unchanged() (set decide.PolicySet, ok bool) {
	epoch, exact := p.db.Epoch()
	t := p.told.Load()
	if !exact || t == nil || t.epoch != epoch {
		return decide.PolicySet{}, false
	}
	if set, ok = p.fresh(t.version); ok {
		set.Names = p.ourNames()
	}
	return set, ok
}

// rowsVersion is the version of the rows of now. Where no other process writes, the
// database is asked only after something has been written.
func (p *policies) rowsVersion(ctx context.Context) (version int64, err error) {
	epoch, exact := p.db.Epoch()
	if t := p.told.Load(); exact && t != nil && t.epoch == epoch {
		return t.version, nil
	}
	err = p.db.Get(ctx, func(tx *db.Tx) (err error) {
		version, err = tx.PolicyVersion(ctx)
		return err
	})
	if err == nil {
		p.told.Store(&told{epoch, version})
	}
	return version, err
}

type compiled struct {
	version int64   // of the rows that it was made from
	own     *[]byte // that was in force
	outside int64   // turn of what they refer to
	set     decide.PolicySet
	// problems are those of the cluster's documents, by path; "" for a good one.
	problems map[string]string
	found    []decide.Problem     // of all documents, warnings too
	named    []operator.Reference // what policies refer to in the cluster
	unread   bool                 // there is a cluster, and nobody has ever read it
}

// fresh returns the set that was compiled last, if nothing that it was made of has
// changed.
func (p *policies) fresh(version int64) (decide.PolicySet, bool) {
	c := p.current.Load()
	if c == nil || c.version != version || c.own != p.own.Load() || c.outside != p.outside.Turn() {
		return decide.PolicySet{}, false
	}
	return c.set, true
}

// changes counts how often something beside the rows has changed that sets are made
// of.
func (p *policies) changes() int64 { return p.turn.Load() + p.outside.Turn() }

// follow asks again for what policies refer to, until ctx ends, and has signatures
// looked at again when it has changed.
func (p *policies) follow(ctx context.Context) error {
	tick := time.NewTicker(outside.Period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		before := p.outside.Turn()
		p.outside.Refresh()
		if p.outside.Turn() == before {
			continue
		}
		if err := p.db.Write(ctx, func(tx *db.Tx) error { return pipeline.PoliciesChanged(ctx, tx) }); err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "signatures are not looked at again", "error", err)
		}
	}
}

// trust says what the server's own Sigstore has to be trusted by; nil: nothing. It
// may change at any time, and counts from the next decision on.
func (p *policies) trust(root []byte) {
	if len(root) == 0 {
		p.own.Store(nil)
		p.turn.Add(1)
		return
	}
	if old := p.own.Load(); old == nil || !bytes.Equal(*old, root) {
		p.own.Store(&root)
		p.turn.Add(1)
	}
}

// load reads files with all that policies may refer to here.
func (p *policies) load(files []load.File) (decide.PolicySet, []decide.Problem) {
	return p.loader().Load(files, p.noMatch)
}

func (p *policies) loader() load.Loader { return p.loaderAsking(func(operator.Reference) {}) }

// loaderAsking is loader that tells asked what policies name of the cluster.
func (p *policies) loaderAsking(asked func(operator.Reference)) load.Loader {
	l := load.Loader{Outside: p.outside.Outside()}
	if known := p.referred.Load(); known != nil {
		known.refer(&l.Outside, asked)
	}
	if own := p.own.Load(); own != nil {
		l.Outside.Trust = *own
	}
	return l
}

// check refuses files of the configuration that do not load. It is asked at start,
// when the trust of the server's own Sigstore is known.
func (p *policies) check() error {
	if len(p.files) == 0 {
		return refusal(p.unread)
	}
	_, problems := p.load(p.files)
	if p.outside.Failing() || p.cluster { // a start waits for nobody: until it is known, the set denies
		problems = slices.DeleteFunc(problems, func(bad decide.Problem) bool {
			if bad.Elsewhere && p.cluster && !p.outside.Failing() {
				// The cluster has not been asked yet: what is still missing then is told
				// by the list of policies, and by whom it denies.
				p.log.Debug("a policy refers to what is not known yet", "problem", bad.String())
			} else if bad.Elsewhere {
				p.log.Warn("a policy refers to what cannot be read", "problem", bad.String(), "hint", bad.Hint)
			}
			return bad.Elsewhere
		})
	}
	return refusal(append(problems, p.unread...))
}

func openPolicies(ctx context.Context, d *db.DB, cfg config.Config, refers *outside.Kept, log *slog.Logger) (*policies, error) {
	p := &policies{db: d, outside: refers, log: log, now: time.Now, cluster: cfg.Kubeconfig != ""}
	switch cfg.NoMatch {
	case "allow":
		p.noMatch = gatehouse.Allow
	case "warn":
		p.noMatch = gatehouse.Warn
	}
	if len(cfg.Policy) > 0 {
		p.files, p.unread = load.Read(cfg.Policy...)
	}
	_, err := p.Set(ctx)
	return p, err
}

// Set returns the policies in force now, compiled anew if a replica changed
// them. It costs one small query.
func (p *policies) Set(ctx context.Context) (decide.PolicySet, error) {
	set, _, err := p.versioned(ctx)
	return set, err
}

// versioned is Set with the version of the rows that the set was made from.
func (p *policies) versioned(ctx context.Context) (set decide.PolicySet, version int64, err error) {
	set, version, err = p.compile(ctx)
	set.Names = p.ourNames()
	return set, version, err
}

// ourNames are those by which policies may speak of images of this server, or of the one
// that is followed, as it is called now.
func (p *policies) ourNames() decide.Names {
	if p.namesOf != nil {
		return p.namesOf().policyNames()
	}
	return p.names
}

func (p *policies) compile(ctx context.Context) (set decide.PolicySet, version int64, err error) {
	var docs []db.Policy
	if version, err = p.rowsVersion(ctx); err != nil {
		return decide.PolicySet{}, 0, err
	}
	if set, ok := p.fresh(version); ok {
		return set, version, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if set, ok := p.fresh(version); ok {
		return set, version, nil
	}
	var read time.Time
	err = p.db.Read(ctx, func(tx *db.Tx) (err error) {
		if version, err = tx.PolicyVersion(ctx); err != nil {
			return err
		}
		docs, read, err = p.documents(ctx, tx)
		return err
	})
	if err != nil {
		return decide.PolicySet{}, 0, err
	}
	own, turn, mark := p.own.Load(), p.outside.Turn(), p.outside.Mark()
	// No policies at all are a whole set, which denies everything.
	set = decide.PolicySet{Complete: true, NoMatch: p.noMatch}
	var problems []decide.Problem
	var named []operator.Reference
	known := referredOf(docs)
	p.referred.Store(&known)
	if files := p.with(docs, "", nil); len(files) > 0 {
		l := p.loaderAsking(func(r operator.Reference) { named = append(named, r) })
		set, problems = l.Load(files, p.noMatch) // a problem makes it not Complete, and it denies
	}
	p.outside.Keep(mark)
	unread := p.cluster && read.IsZero()
	if unread { // nobody knows which policies the cluster has
		set.Complete, set.Lacks = false, "the policies of the cluster have not been read yet"
	}
	p.current.Store(&compiled{version, own, turn, set, clusterProblems(docs, problems), problems, named, unread}) // if one has changed meanwhile, the next one compiles again
	return set, version, nil
}

// with lists all policies, the named document replaced by source (nil: left out).
func (p *policies) with(docs []db.Policy, name string, source []byte) []load.File {
	files := append([]load.File(nil), p.files...)
	for _, d := range docs {
		if d.Name != name && !isReference(d.Name) {
			files = append(files, load.File{Path: d.Name, Data: []byte(d.Source)})
		}
	}
	if source != nil {
		files = append(files, load.File{Path: name, Data: source})
	}
	return files
}

// problemsMax is how many problems of a policy one refusal names.
const problemsMax = 10

// warningsMax is how many warnings of a policy one answer names.
const warningsMax = 100

// refusal is the error that names everything that keeps policies from working:
// who repairs one problem should not meet the next on the second try.
func refusal(problems []decide.Problem) error {
	problems = decide.Errors(problems)
	if len(problems) == 0 {
		return nil
	}
	decide.SortProblems(problems)
	var said, hints []string
	for i, p := range problems {
		if i == problemsMax {
			said = append(said, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		said = append(said, p.String())
		if p.Hint != "" && !slices.Contains(hints, p.Hint) {
			hints = append(hints, p.Hint)
		}
	}
	e := gatehouse.Errorf(gatehouse.CodeInvalid, "%s", strings.Join(said, "; "))
	e.Hint = strings.Join(hints, "; ")
	return e
}

// policyAPI is what the API sees of policies and decisions.
type policyAPI struct {
	*policies
	decider *decider
}

func (p *policies) api(d *decider) policyAPI { return policyAPI{p, d} }

// listedPolicy is one row of GET /api/v1/policies.
type listedPolicy struct {
	Name      string    `json:"name"`
	Source    string    `json:"source"`
	UpdatedBy string    `json:"updatedBy,omitempty"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	// Problems is why it does not count as it stands, or denies.
	Problems []warning `json:"problems,omitempty"`
}

func (p policyAPI) List(ctx context.Context) (any, error) {
	if _, err := p.Set(ctx); err != nil {
		return nil, err
	}
	bad := map[string][]warning{}
	for _, f := range decide.Errors(p.current.Load().found) {
		if len(bad[f.Path]) < problemsMax {
			bad[f.Path] = append(bad[f.Path], warning{f.Line, f.Field, strings.TrimSuffix(f.Message+": "+f.Detail, ": "), f.Hint})
		}
	}
	out := []listedPolicy{}
	for _, f := range p.files {
		out = append(out, listedPolicy{Name: f.Path, Source: string(f.Data), Problems: bad[f.Path]})
	}
	err := p.db.Get(ctx, func(tx *db.Tx) error {
		docs, _, err := p.documents(ctx, tx)
		for _, d := range docs {
			if isReference(d.Name) {
				continue
			}
			out = append(out, listedPolicy{d.Name, d.Source, d.UpdatedBy, d.UpdatedAt, bad[d.Name]})
		}
		return err
	})
	return map[string]any{"policies": out}, err
}

// putAnswer is the answer of PUT /api/v1/policies/NAME.
type putAnswer struct {
	Name     string    `json:"name"`
	Warnings []warning `json:"warnings"`
}

// warning is about a policy that works, but perhaps not as meant.
type warning struct {
	Line    int    `json:"line,omitempty"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Put adds or replaces a document. One that does not load beside the others, whose
// trust roots it may name, is refused: a mistake must not close the cluster.
func (p policyAPI) Put(ctx context.Context, actor gatehouse.Actor, name string, source []byte) (any, error) {
	out := putAnswer{Name: name, Warnings: []warning{}}
	// What is wrong with the file as a whole does not show beside others: it is empty.
	_, problems := p.load([]load.File{{Path: name, Data: source}})
	problems = slices.DeleteFunc(problems, func(p decide.Problem) bool { return p.Line > 0 || p.Field != "" })
	if err := refusal(problems); err != nil {
		return nil, err
	}
	err := p.db.Write(ctx, func(tx *db.Tx) error {
		docs, _, err := p.documents(ctx, tx)
		if err != nil {
			return err
		}
		_, problems := p.load(p.with(docs, name, source))
		if err := refusal(p.new(problems, docs, name)); err != nil {
			return err
		}
		out.Warnings = out.Warnings[:0] // the transaction may be tried again
		for _, w := range problems {
			if w.Path == name && len(out.Warnings) < warningsMax {
				out.Warnings = append(out.Warnings, warning{w.Line, w.Field, w.Message, w.Hint})
			}
		}
		if err := tx.PutPolicy(ctx, actor, name, string(source)); err != nil {
			return err
		}
		return pipeline.PoliciesChanged(ctx, tx)
	})
	return out, err
}

// new leaves out the problems that documents of the cluster have without the named one:
// it is not what has to be repaired. Their authors are told in the cluster.
func (p *policies) new(problems []decide.Problem, docs []db.Policy, name string) []decide.Problem {
	if !slices.ContainsFunc(decide.Errors(problems), func(bad decide.Problem) bool { return isCluster(bad.Path) }) {
		return problems
	}
	_, before := p.load(p.with(docs, name, nil))
	return slices.DeleteFunc(slices.Clone(problems), func(bad decide.Problem) bool { return isCluster(bad.Path) && slices.Contains(before, bad) })
}

// Delete takes a document away. A trust root that other policies name stays: without
// it the set would not be whole, and deny everything.
func (p policyAPI) Delete(ctx context.Context, actor gatehouse.Actor, name string) error {
	return p.db.Write(ctx, func(tx *db.Tx) error {
		docs, _, err := p.documents(ctx, tx)
		if err != nil {
			return err
		}
		before, had := p.load(p.with(docs, "", nil))
		if rest := p.with(docs, name, nil); before.Complete && len(rest) > 0 {
			_, problems := p.load(rest)
			for _, bad := range decide.Errors(problems) {
				if !slices.Contains(had, bad) { // what waits for something waits without it, too
					return gatehouse.Errorf(gatehouse.CodeConflict, "other policies need %s: %s", name, bad).WithHint("change or delete those first")
				}
			}
		}
		if err := tx.DeletePolicy(ctx, actor, name); err != nil {
			return err
		}
		return pipeline.PoliciesChanged(ctx, tx)
	})
}

func (p policyAPI) Decision(ctx context.Context, id string) (d gatehouse.Decision, err error) {
	if d, ok := p.decider.recent(id); ok {
		return d, nil
	}
	err = p.db.Get(ctx, func(tx *db.Tx) (err error) {
		d, err = tx.Decision(ctx, id)
		return err
	})
	return d, err
}
