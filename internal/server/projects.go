package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// projects is what the API asks about the settings of projects.
type projects struct {
	db       *db.DB
	policies *policies
}

// pullPolicyDoc is what a project asks of pulls, as the API shows it.
type pullPolicyDoc struct {
	Project   string             `json:"project"`
	Mode      gatehouse.PullMode `json:"mode"`
	Policies  any                `json:"policies"` // names, or "all"
	UpdatedBy string             `json:"updatedBy,omitempty"`
	UpdatedAt time.Time          `json:"updatedAt,omitzero"`
}

func pullPolicyDocOf(p db.PullPolicy) pullPolicyDoc {
	d := pullPolicyDoc{p.Project, p.Mode, "all", p.UpdatedBy, p.UpdatedAt}
	if len(p.Policies) > 0 {
		d.Policies = p.Policies
	}
	return d
}

// immutableTagsDoc is which tags of a project are immutable, as the API shows it.
type immutableTagsDoc struct {
	Project   string                `json:"project"`
	Tags      gatehouse.TagPatterns `json:"tags"`
	UpdatedBy string                `json:"updatedBy,omitempty"`
	UpdatedAt time.Time             `json:"updatedAt,omitzero"`
}

func immutableTagsDocOf(s db.ImmutableTags) immutableTagsDoc {
	d := immutableTagsDoc{s.Project, s.Patterns, s.UpdatedBy, s.UpdatedAt}
	if d.Tags == nil {
		d.Tags = gatehouse.TagPatterns{}
	}
	return d
}

// List implements api.Projects.
func (p projects) List(ctx context.Context, after string, n int) (any, error) {
	type project struct {
		Name          string           `json:"name"`
		PullPolicy    pullPolicyDoc    `json:"pullPolicy"`
		ImmutableTags immutableTagsDoc `json:"immutableTags"`
	}
	out := struct {
		Projects []project `json:"projects"`
		Next     string    `json:"next,omitempty"`
	}{Projects: []project{}}
	pulls, tags := map[string]db.PullPolicy{}, map[string]db.ImmutableTags{}
	var names []string
	err := p.db.Read(ctx, func(tx *db.Tx) error {
		some, err := tx.PullPolicies(ctx, after, n)
		if err != nil {
			return err
		}
		for _, one := range some {
			pulls[one.Project], names = one, append(names, one.Project)
		}
		others, err := tx.AllImmutableTags(ctx, after, n)
		for _, one := range others {
			tags[one.Project], names = one, append(names, one.Project)
		}
		return err
	})
	slices.Sort(names)
	names = slices.Compact(names)
	names = names[:min(len(names), n)] // of what comes behind, each list has its first part only
	for _, name := range names {
		pull, tag := pulls[name], tags[name]
		pull.Project, tag.Project = name, name
		out.Projects = append(out.Projects, project{name, pullPolicyDocOf(pull), immutableTagsDocOf(tag)})
	}
	if len(names) == n && n > 0 {
		out.Next = names[n-1]
	}
	return out, err
}

// PullPolicy implements api.Projects.
func (p projects) PullPolicy(ctx context.Context, name string) (any, error) {
	out := db.PullPolicy{Project: name}
	err := p.db.Get(ctx, func(tx *db.Tx) error {
		set, ok, err := tx.PullPolicy(ctx, gatehouse.Repo(name))
		if ok {
			out = set
		}
		return err
	})
	return pullPolicyDocOf(out), err
}

// SetPullPolicy implements api.Projects. Policies that are not there, or that do not
// speak of images, are refused: they would close the project.
func (p projects) SetPullPolicy(ctx context.Context, actor gatehouse.Actor, name string, mode gatehouse.PullMode, names []string) (any, error) {
	set, err := p.policies.Set(ctx)
	if err != nil {
		return nil, err
	}
	var there []string
	for _, policy := range set.Policies {
		if _, ok := policy.(decide.ImagePolicy); ok {
			there = append(there, policy.Name())
		}
	}
	for _, want := range names {
		if !slices.Contains(there, want) {
			hint := "there is none yet: put a ClusterImagePolicy or an ImageRule first"
			if len(there) > 0 {
				const shownMax = 20
				hint = "there are: " + strings.Join(there[:min(len(there), shownMax)], ", ")
			}
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "there is no policy %q that speaks of images", want).WithHint("%s", hint)
		}
	}
	out := db.PullPolicy{Project: name, Mode: mode, Policies: names}
	err = p.db.Write(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.SetPullPolicy(ctx, actor, out)
		return err
	})
	return pullPolicyDocOf(out), err
}

// DeletePullPolicy implements api.Projects.
func (p projects) DeletePullPolicy(ctx context.Context, actor gatehouse.Actor, name string) error {
	return p.db.Write(ctx, func(tx *db.Tx) error { return tx.DeletePullPolicy(ctx, actor, name) })
}

// ImmutableTags implements api.Projects.
func (p projects) ImmutableTags(ctx context.Context, name string) (any, error) {
	out := db.ImmutableTags{Project: name}
	err := p.db.Get(ctx, func(tx *db.Tx) error {
		set, ok, err := tx.ImmutableTags(ctx, gatehouse.Repo(name))
		if ok {
			out = set
		}
		return err
	})
	return immutableTagsDocOf(out), err
}

// SetImmutableTags implements api.Projects.
func (p projects) SetImmutableTags(ctx context.Context, actor gatehouse.Actor, name string, tags gatehouse.TagPatterns) (any, error) {
	out := db.ImmutableTags{Project: name, Patterns: tags}
	err := p.db.Write(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.SetImmutableTags(ctx, actor, out)
		return err
	})
	return immutableTagsDocOf(out), err
}
