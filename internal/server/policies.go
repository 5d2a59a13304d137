package server

import (
	"context"
	"fmt"
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
)

// policies holds the policy set in force: the files that the configuration
// names, read at start, and the documents that came by the API.
type policies struct {
	db      *db.DB
	noMatch gatehouse.Verdict
	files   []load.File
	mu      sync.Mutex // compiles one at a time
	current atomic.Pointer[compiled]
}

type compiled struct {
	version int64 // of the rows that it was made from
	set     decide.PolicySet
}

func openPolicies(ctx context.Context, d *db.DB, cfg config.Config) (*policies, error) {
	p := &policies{db: d}
	switch cfg.NoMatch {
	case "allow":
		p.noMatch = gatehouse.Allow
	case "warn":
		p.noMatch = gatehouse.Warn
	}
	if len(cfg.Policy) > 0 {
		files, problems := load.Read(cfg.Policy...)
		p.files = files
		_, more := load.Load(files, p.noMatch)
		if err := refusal(append(problems, more...)); err != nil {
			return nil, err
		}
	}
	_, err := p.Set(ctx)
	return p, err
}

// Set returns the policies in force now, compiled anew if a replica changed
// them. It costs one small query.
func (p *policies) Set(ctx context.Context) (decide.PolicySet, error) {
	var version int64
	var docs []db.Policy
	err := p.db.Get(ctx, func(tx *db.Tx) (err error) {
		version, err = tx.PolicyVersion(ctx)
		return err
	})
	if err != nil {
		return decide.PolicySet{}, err
	}
	if c := p.current.Load(); c != nil && c.version == version {
		return c.set, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.current.Load(); c != nil && c.version == version {
		return c.set, nil
	}
	err = p.db.Read(ctx, func(tx *db.Tx) (err error) {
		if version, err = tx.PolicyVersion(ctx); err != nil {
			return err
		}
		docs, err = tx.Policies(ctx)
		return err
	})
	if err != nil {
		return decide.PolicySet{}, err
	}
	// No policies at all are a whole set, which denies everything.
	set := decide.PolicySet{Complete: true, NoMatch: p.noMatch}
	if files := p.with(docs, "", nil); len(files) > 0 {
		set, _ = load.Load(files, p.noMatch) // a problem makes it not Complete, and it denies
	}
	p.current.Store(&compiled{version, set})
	return set, nil
}

// with lists all files, the named document replaced by source (nil: left out).
func (p *policies) with(docs []db.Policy, name string, source []byte) []load.File {
	files := append([]load.File(nil), p.files...)
	for _, d := range docs {
		if d.Name != name {
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
}

func (p policyAPI) List(ctx context.Context) (any, error) {
	out := []listedPolicy{}
	for _, f := range p.files {
		out = append(out, listedPolicy{Name: f.Path, Source: string(f.Data)})
	}
	err := p.db.Get(ctx, func(tx *db.Tx) error {
		docs, err := tx.Policies(ctx)
		for _, d := range docs {
			out = append(out, listedPolicy{d.Name, d.Source, d.UpdatedBy, d.UpdatedAt})
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

// Put adds or replaces a document. One that does not load, alone and beside the
// others, is refused: a mistake must not close the cluster.
func (p policyAPI) Put(ctx context.Context, actor gatehouse.Actor, name string, source []byte) (any, error) {
	alone := []load.File{{Path: name, Data: source}}
	_, problems := load.Load(alone, p.noMatch)
	if err := refusal(problems); err != nil {
		return nil, err
	}
	out := putAnswer{Name: name, Warnings: []warning{}}
	decide.SortProblems(problems)
	for _, w := range problems[:min(len(problems), warningsMax)] {
		out.Warnings = append(out.Warnings, warning{w.Line, w.Field, w.Message, w.Hint})
	}
	return out, p.db.Write(ctx, func(tx *db.Tx) error {
		docs, err := tx.Policies(ctx)
		if err != nil {
			return err
		}
		_, problems := load.Load(p.with(docs, name, source), p.noMatch)
		if err := refusal(problems); err != nil {
			return err
		}
		return tx.PutPolicy(ctx, actor, name, string(source))
	})
}

func (p policyAPI) Delete(ctx context.Context, actor gatehouse.Actor, name string) error {
	return p.db.Write(ctx, func(tx *db.Tx) error { return tx.DeletePolicy(ctx, actor, name) })
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
