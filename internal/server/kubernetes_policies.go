package server

import (
	"context"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/operator"
)

// documents lists the documents of the API and, where there is a cluster, of it. read
// is when the latter were read for the first time; zero: never.
func (p *policies) documents(ctx context.Context, tx *db.Tx) (docs []db.Policy, read time.Time, err error) {
	if docs, err = tx.Policies(ctx); err != nil || !p.cluster {
		return docs, read, err
	}
	more, read, err := tx.ClusterDocuments(ctx)
	for _, d := range more {
		docs = append(docs, db.Policy{Name: d.Path, Source: d.Source, UpdatedBy: "system:cluster", UpdatedAt: read})
	}
	return docs, read, err
}

// isReference reports whether a document is no policy, but what policies refer to.
func isReference(name string) bool { return strings.HasPrefix(name, operator.ReferencePath) }

// isCluster reports whether a document came from the cluster.
func isCluster(name string) bool { return strings.HasPrefix(name, operator.PolicyPath) }

// clusterProblems are the problems of each document of the cluster.
func clusterProblems(docs []db.Policy, problems []decide.Problem) map[string]string {
	out := map[string]string{}
	for _, d := range docs {
		if isCluster(d.Name) {
			out[d.Name] = ""
		}
	}
	for _, p := range decide.Errors(problems) {
		before, ours := out[p.Path]
		if !ours {
			continue
		}
		text := strings.TrimPrefix(p.Field+": "+p.Message, ": ")
		if p.Hint != "" {
			text += " (" + p.Hint + ")"
		}
		out[p.Path] = strings.TrimPrefix(before+"; "+text, "; ")
	}
	return out
}

// status tells of each document of the cluster whether it counts.
func (p *policies) status(ctx context.Context) (map[string]operator.Status, error) {
	if _, err := p.Set(ctx); err != nil {
		return nil, err
	}
	out := map[string]operator.Status{}
	if c := p.current.Load(); c != nil {
		for path, problem := range c.problems {
			out[path] = operator.Status{Problem: problem}
		}
	}
	return out, nil
}

// fallbackOf is what of a set the API server can judge by itself. A set that is not
// whole, or has no policy of images, leaves what is there.
func fallbackOf(set decide.PolicySet) operator.Fallback {
	o := set.Outline()
	if !set.Complete || !o.Images {
		return operator.Fallback{Keep: !set.Complete, Open: true}
	}
	f := operator.Fallback{Open: set.NoMatch != gatehouse.Deny, Allow: o.Globs}
	for _, r := range o.Names {
		f.Names = append(f.Names, operator.NameRule(r))
	}
	return f
}

// lookUpWait is how long objects of the cluster may take to be copied that only a
// simulation looks up.
const lookUpWait = 30 * time.Second

// lookUp returns what sets of policies look up in the cluster, until release is called;
// nil where there is no cluster, or they look nothing up.
func (c *kubernetes) lookUp(ctx context.Context, sets ...decide.PolicySet) (inventory *gatehouse.ClusterInventory, release func()) {
	var kinds []gatehouse.ObjectKind
	for _, set := range sets {
		kinds = append(kinds, set.Lookups...)
	}
	if c == nil || len(kinds) == 0 {
		return nil, func() {}
	}
	short, cancel := context.WithTimeout(ctx, lookUpWait)
	defer cancel()
	release = c.view.LookupFor(short, kinds)
	return c.view.Inventory(), release
}
