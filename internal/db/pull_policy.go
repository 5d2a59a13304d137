package db

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// PullPolicy is what a project asks of an image before it may be pulled.
type PullPolicy struct {
	Project   string
	Mode      gatehouse.PullMode
	Policies  []string // names; empty: all that are in force
	UpdatedBy string
	UpdatedAt time.Time
}

// projectOf is the project of a repository: the first part of its name.
func projectOf(repo gatehouse.Repo) string {
	project, _, _ := strings.Cut(string(repo), "/")
	return project
}

// lookForPulls finds out whether any project has a pull policy, for a database that
// nobody else writes to: the most frequent query need not ask each time then.
func (d *DB) lookForPulls(ctx context.Context) error {
	return d.Get(ctx, func(t *Tx) error {
		list, err := t.PullPolicies(ctx, "", 1)
		d.noPulls.Store(err == nil && len(list) == 0)
		return err
	})
}

// pullColumn is the pull policy of the project $3. It comes with the manifest, so
// that no query of its own is needed to know that there is none.
const pullColumn = `, COALESCE((SELECT pp.mode FROM pull_policy pp WHERE pp.project = $3), 0)`

// anyPulls reports whether a project may have a pull policy.
func (t *Tx) anyPulls() bool { return t.noPulls == nil || !t.noPulls.Load() }

// SetPullPolicy sets what a project asks, with its event and audit record.
func (t *Tx) SetPullPolicy(ctx context.Context, actor gatehouse.Actor, p PullPolicy) (PullPolicy, error) {
	if p.Policies == nil {
		p.Policies = []string{}
	}
	names, err := json.Marshal(p.Policies)
	if err != nil {
		return p, err
	}
	t.noPulls.Store(false)
	p.UpdatedBy, p.UpdatedAt = actor.Name, fromMicros(micros(t.now))
	_, err = t.tx.ExecContext(ctx, `INSERT INTO pull_policy (project, mode, policies, updated_by, updated_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (project) DO UPDATE SET mode = excluded.mode, policies = excluded.policies, updated_by = excluded.updated_by, updated_at = excluded.updated_at`,
		p.Project, int(p.Mode), string(names), p.UpdatedBy, micros(t.now))
	if err != nil {
		return p, unavailable(err)
	}
	return p, t.pullPolicyChanged(ctx, actor, "project.pull-policy.set", p)
}

// DeletePullPolicy takes back what a project asks. CodeNotFound: it asks nothing.
func (t *Tx) DeletePullPolicy(ctx context.Context, actor gatehouse.Actor, project string) error {
	n, err := affected(t.tx.ExecContext(ctx, `DELETE FROM pull_policy WHERE project = $1`, project))
	if err != nil {
		return err
	}
	if n == 0 {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "project %s has no pull policy", project)
	}
	return t.pullPolicyChanged(ctx, actor, "project.pull-policy.delete", PullPolicy{Project: project})
}

func (t *Tx) pullPolicyChanged(ctx context.Context, actor gatehouse.Actor, action string, p PullPolicy) error {
	detail, err := json.Marshal(map[string]any{"project": p.Project, "pullPolicy": p.Mode.String(), "policies": p.Policies})
	if err != nil {
		return err
	}
	if err := t.AddEvent(ctx, gatehouse.Event{Type: gatehouse.EventProjectChanged, Actor: actor.Name, Payload: detail}); err != nil {
		return err
	}
	return t.AddAudit(ctx, actor, action, p.Project, string(detail))
}

// PullPolicy tells what the project of a repository asks. ok is false where it asks
// nothing.
func (t *Tx) PullPolicy(ctx context.Context, repo gatehouse.Repo) (p PullPolicy, ok bool, err error) {
	list, err := t.pullPolicies(ctx, `WHERE project = $1`, projectOf(repo))
	if err != nil || len(list) == 0 {
		return p, false, err
	}
	return list[0], true, nil
}

// PullPolicies lists what projects ask, by name behind the given one, at most n.
func (t *Tx) PullPolicies(ctx context.Context, after string, n int) ([]PullPolicy, error) {
	return t.pullPolicies(ctx, `WHERE project > $1 ORDER BY project LIMIT $2`, after, n)
}

func (t *Tx) pullPolicies(ctx context.Context, where string, args ...any) ([]PullPolicy, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT project, mode, policies, updated_by, updated_at FROM pull_policy `+where, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []PullPolicy
	for rows.Next() {
		var p PullPolicy
		var names string
		var at int64
		if err := rows.Scan(&p.Project, &p.Mode, &names, &p.UpdatedBy, &at); err != nil {
			return nil, unavailable(err)
		}
		if err := json.Unmarshal([]byte(names), &p.Policies); err != nil {
			return nil, fmt.Errorf("stored pull policy of %s: %w", p.Project, err)
		}
		p.UpdatedAt = fromMicros(at)
		out = append(out, p)
	}
	return out, unavailable(rows.Err())
}
