// Package constraint reads and asks Gatekeeper's policies: ConstraintTemplates, which
// hold rules in Rego or CEL, and the constraints that apply them with parameters to
// the objects that they match. Documents go in, decide.Policies or their problems come
// out. It knows what Gatekeeper's webhook knows, and is stricter where that is silent:
// what cannot be evaluated denies, and so does a rule that looks up objects of the
// cluster which nobody has handed in.
//
// Rules cannot reach the network, the environment or the clock of the machine, and
// external data providers are not asked: a template that wants one is refused.
package constraint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// Groups of the documents that this package reads.
const (
	GroupTemplates   = "templates.gatekeeper.sh"
	GroupConstraints = "constraints.gatekeeper.sh"
	GroupExpansion   = "expansion.gatekeeper.sh"
	GroupSyncSet     = "syncset.gatekeeper.sh"
	GroupConfig      = "config.gatekeeper.sh"
)

// Kinds of the documents that this package reads, beside those that templates make.
const (
	KindTemplate  = "ConstraintTemplate"
	KindExpansion = "ExpansionTemplate"
	KindSyncSet   = "SyncSet"
	KindConfig    = "Config"
)

// Points at which constraints are enforced; scopedEnforcementActions names them.
const (
	PointWebhook = "validation.gatekeeper.sh"
	PointAudit   = "audit.gatekeeper.sh"
	PointTest    = "gator.gatekeeper.sh"
	pointVAP     = "vap.k8s.io"
)

const target = "admission.k8s.gatekeeper.sh"

// Limits of one library.
const (
	templatesMax  = 1_000
	expansionsMax = 200
)

// Library holds the templates of one policy set, and what its constraints share. It is
// filled by one goroutine: all templates first, then the constraints; from then on its
// policies are safe for concurrent use.
type Library struct {
	point      string
	templates  map[string]*template // by kind
	expansions []*expansion
	exempt     []wildcard             // namespaces that Config exempts
	synced     []gatehouse.ObjectKind // by Config and SyncSets
	inventory  inventoryCache
}

// NewLibrary makes an empty library whose constraints are asked at the named point.
func NewLibrary(point string) *Library {
	return &Library{point: point, templates: map[string]*template{}}
}

// Reads reports whether a document of this group is for [Library.Add] or
// [Library.Constraint].
func Reads(apiVersion string) bool {
	group, _, _ := strings.Cut(apiVersion, "/")
	return slices.Contains([]string{GroupTemplates, GroupConstraints, GroupExpansion, GroupSyncSet, GroupConfig}, group)
}

// IsConstraint reports whether a document is a constraint, which needs its template.
func IsConstraint(apiVersion string) bool { return strings.HasPrefix(apiVersion, GroupConstraints+"/") }

// Len is how many documents that are no policies themselves the library holds.
func (l *Library) Len() int {
	return len(l.templates) + len(l.expansions) + len(l.synced) + len(l.exempt)
}

// Add reads a document that is not a constraint.
func (l *Library) Add(doc *manifest.Document) []decide.Problem {
	group, _, _ := strings.Cut(doc.Field("apiVersion"), "/")
	kind := doc.Field("kind")
	switch {
	case group == GroupTemplates && kind == KindTemplate:
		return l.addTemplate(doc)
	case group == GroupExpansion && kind == KindExpansion:
		return l.addExpansion(doc)
	case group == GroupSyncSet && kind == KindSyncSet:
		return l.addSyncSet(doc)
	case group == GroupConfig && kind == KindConfig:
		return l.addConfig(doc)
	}
	return []decide.Problem{doc.Problem(doc.At("kind"), "kind", fmt.Sprintf("kind is not supported: %s %s", clip(doc.Field("apiVersion")), clip(kind)),
		"of Gatekeeper's kinds there are ConstraintTemplate, constraints, ExpansionTemplate, SyncSet and Config")}
}

// Lookups are the kinds of objects that the templates look up, in order.
func (l *Library) Lookups() []gatehouse.ObjectKind {
	all := slices.Clone(l.synced)
	for _, t := range l.templates {
		if !t.used {
			continue
		}
		for _, alternatives := range t.needs {
			all = append(all, alternatives...)
		}
	}
	slices.SortFunc(all, func(a, b gatehouse.ObjectKind) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Kind, b.Kind))
	})
	return slices.Compact(all)
}

// reader collects what is wrong with one document.
type reader struct {
	doc      *manifest.Document
	obj      map[string]any
	problems []decide.Problem
}

func (r *reader) problem(field, message, hint string) {
	r.problems = append(r.problems, r.doc.Problem(r.doc.At(field), field, message, hint))
}

func (r *reader) warn(field, message, hint string) {
	p := r.doc.Problem(r.doc.At(field), field, message, hint)
	p.Warning = true
	r.problems = append(r.problems, p)
}

// read checks doc by its grammar. Unknown fields are warnings here: the API server
// drops them from these kinds, and a policy that worked so far must go on to.
// Nil is a document that cannot be read further.
func read(doc *manifest.Document, grammar manifest.Type) (*reader, []decide.Problem) {
	obj, err := doc.Value()
	if err != nil {
		return nil, []decide.Problem{doc.Problem(nil, "", err.Error(), "")}
	}
	problems := doc.Check(grammar)
	for i := range problems {
		problems[i].Warning = strings.HasPrefix(problems[i].Message, "unknown field")
	}
	r := &reader{doc: doc, obj: obj, problems: problems}
	if len(decide.Errors(problems)) > 0 {
		return nil, problems
	}
	return r, nil
}

// version refuses an apiVersion that does not exist.
func (r *reader) version(group string, versions ...string) {
	_, v, _ := strings.Cut(r.doc.Field("apiVersion"), "/")
	if !slices.Contains(versions, v) {
		r.problem("apiVersion", "unknown version: "+clip(r.doc.Field("apiVersion")), "use "+group+"/"+versions[0])
	}
}

// at walks obj along keys; nil where there is nothing.
func at(obj map[string]any, keys ...string) any {
	var v any = obj
	for _, key := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func textAt(obj map[string]any, keys ...string) string {
	s, _ := at(obj, keys...).(string)
	return s
}

func mapAt(obj map[string]any, keys ...string) map[string]any {
	m, _ := at(obj, keys...).(map[string]any)
	return m
}

func listAt(obj map[string]any, keys ...string) []any {
	l, _ := at(obj, keys...).([]any)
	return l
}

func textsAt(obj map[string]any, keys ...string) []string {
	var out []string
	for _, v := range listAt(obj, keys...) {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func clip(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
