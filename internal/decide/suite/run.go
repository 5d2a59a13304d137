package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/constraint"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// Result is what came of one case.
type Result struct {
	Test, Case string // Case is empty for a test of an invalid constraint
	Skipped    bool
	Err        error // nil: passed, or skipped
}

// Run runs the tests of s at the time now, for those rules that ask for it. A test
// that cannot be run fails with each of its cases.
func Run(ctx context.Context, fsys fs.FS, s *Suite, now time.Time) []Result {
	var all []Result
	for _, t := range s.Tests {
		r := runner{fsys: fsys, suite: s, now: now}
		all = append(all, r.test(ctx, t)...)
	}
	return all
}

type runner struct {
	fsys  fs.FS
	suite *Suite
	now   time.Time
}

func (r runner) test(ctx context.Context, t Test) []Result {
	if r.suite.Skip || t.Skip {
		return each(t, Result{Skipped: true})
	}
	policy, refused, err := r.compile(t)
	if t.Invalid {
		switch {
		case err != nil:
		case refused == nil:
			err = errors.New("the constraint is valid, the test wants an invalid one")
		}
		return []Result{{Test: t.Name, Err: err}}
	}
	if err == nil {
		err = refused
	}
	if err != nil {
		return each(t, Result{Err: err})
	}
	var all []Result
	for _, c := range t.Cases {
		res := Result{Test: t.Name, Case: c.Name, Skipped: c.Skip}
		if !c.Skip {
			res.Err = r.check(ctx, policy, c)
		}
		all = append(all, res)
	}
	return all
}

// each gives every case of a test the same result, or the test itself if it has none.
func each(t Test, res Result) []Result {
	res.Test = t.Name
	if len(t.Cases) == 0 {
		return []Result{res}
	}
	var all []Result
	for _, c := range t.Cases {
		res.Case = c.Name
		all = append(all, res)
	}
	return all
}

// compile reads template, ExpansionTemplates and constraint. refused is what is wrong with the constraint
// for its template.
func (r runner) compile(t Test) (p *constraint.Policy, refused, err error) {
	if err := t.needs(); err != nil {
		return nil, nil, err
	}
	doc, err := one(r.fsys, r.suite.join(t.Template))
	if err != nil {
		return nil, nil, err
	}
	if doc.Field("kind") != constraint.KindTemplate {
		return nil, nil, fmt.Errorf("%s is no ConstraintTemplate", doc.Path)
	}
	library := constraint.NewLibrary(constraint.PointTest)
	if bad := decide.Errors(library.Add(doc)); len(bad) > 0 {
		return nil, nil, errors.New(bad[0].String())
	}
	if err := r.expansions(library, t.Expansion); err != nil {
		return nil, nil, err
	}
	if doc, err = one(r.fsys, r.suite.join(t.Constraint)); err != nil {
		return nil, nil, err
	}
	if !constraint.IsConstraint(doc.Field("apiVersion")) {
		return nil, nil, fmt.Errorf("%s is no constraint", doc.Path)
	}
	p, problems := library.Constraint(doc)
	if bad := decide.Errors(problems); len(bad) > 0 {
		return nil, errors.New(bad[0].String()), nil
	}
	return p, nil, nil
}

// expansions reads the ExpansionTemplates of a test, of which one file holds all.
func (r runner) expansions(library *constraint.Library, name string) error {
	if name == "" {
		return nil
	}
	docs, err := documents(r.fsys, r.suite.join(name))
	if err != nil {
		return err
	}
	for _, doc := range docs {
		if doc.Field("kind") != constraint.KindExpansion {
			return fmt.Errorf("%s:%d is no ExpansionTemplate", doc.Path, doc.Line)
		}
		if bad := decide.Errors(library.Add(doc)); len(bad) > 0 {
			return errors.New(bad[0].String())
		}
	}
	return nil
}

func (r runner) check(ctx context.Context, p *constraint.Policy, c Case) error {
	switch {
	case c.Object == "":
		return errors.New("the case names no object")
	case len(c.Assertions) == 0:
		return errors.New("the case has no assertions")
	}
	doc, err := one(r.fsys, r.suite.join(c.Object))
	if err != nil {
		return err
	}
	req, err := request(doc)
	if err != nil {
		return fmt.Errorf("%s: %w", doc.Path, err)
	}
	req.Now = r.now
	if req.Inventory, err = r.inventory(c.Inventory); err != nil {
		return err
	}
	messages, err := p.Violations(ctx, req)
	if err != nil {
		return err
	}
	for _, a := range c.Assertions {
		if err := a.check(messages); err != nil {
			return err
		}
	}
	return nil
}

// inventory reads what the cluster is to hold: these objects and no others.
func (r runner) inventory(paths []string) (*gatehouse.ClusterInventory, error) {
	inv := &gatehouse.ClusterInventory{Kinds: []gatehouse.ObjectKind{{Group: "*", Version: "*", Kind: "*"}}}
	for _, p := range paths {
		docs, err := documents(r.fsys, r.suite.join(p))
		if err != nil {
			return nil, err
		}
		for _, doc := range docs {
			o, err := clusterObject(doc)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", doc.Path, doc.Line, err)
			}
			inv.Objects = append(inv.Objects, o)
		}
	}
	return inv, nil
}

func clusterObject(doc *manifest.Document) (*gatehouse.ClusterObject, error) {
	obj, err := doc.Value()
	if err != nil {
		return nil, err
	}
	meta, _ := obj["metadata"].(map[string]any)
	o := &gatehouse.ClusterObject{Kind: workload.Kind(obj)}
	o.Name, _ = meta["name"].(string)
	o.Namespace, _ = meta["namespace"].(string)
	if o.Kind.Kind == "" || o.Kind.Version == "" || o.Name == "" {
		return nil, errors.New("an object of the cluster needs apiVersion, kind and metadata.name")
	}
	o.Object, err = json.Marshal(obj)
	return o, err
}

// request makes a request of an object, or reads it out of an AdmissionReview.
func request(doc *manifest.Document) (gatehouse.Request, error) {
	obj, err := doc.Value()
	if err != nil {
		return gatehouse.Request{}, err
	}
	k := workload.Kind(obj)
	if k.Group == "admission.k8s.io" && k.Kind == "AdmissionReview" {
		return reviewRequest(obj)
	}
	if k.Kind == "" {
		return gatehouse.Request{}, errors.New("the object has no kind")
	}
	meta, _ := obj["metadata"].(map[string]any)
	req := gatehouse.Request{Kind: k}
	req.Name, _ = meta["name"].(string)
	req.Namespace, _ = meta["namespace"].(string)
	req.Object, err = json.Marshal(obj)
	return req, err
}

// requestFields are those of an AdmissionRequest.
var requestFields = []string{
	"uid", "kind", "resource", "subResource", "requestKind", "requestResource", "requestSubResource",
	"name", "namespace", "operation", "userInfo", "object", "oldObject", "dryRun", "options",
}

func reviewRequest(obj map[string]any) (req gatehouse.Request, err error) {
	raw, ok := obj["request"].(map[string]any)
	if !ok {
		return req, errors.New("the AdmissionReview has no request")
	}
	for key := range raw {
		if !slices.Contains(requestFields, key) {
			return req, fmt.Errorf("an AdmissionRequest has no field %q", key)
		}
	}
	text := func(key string) string { s, _ := raw[key].(string); return s }
	req = gatehouse.Request{UID: text("uid"), Name: text("name"), Namespace: text("namespace"), Operation: text("operation")}
	if k, ok := raw["kind"].(map[string]any); ok {
		req.Kind.Group, _ = k["group"].(string)
		req.Kind.Version, _ = k["version"].(string)
		req.Kind.Kind, _ = k["kind"].(string)
	}
	for key, to := range map[string]*[]byte{"object": &req.Object, "oldObject": &req.OldObject} {
		if raw[key] == nil {
			continue
		}
		o, ok := raw[key].(map[string]any)
		if !ok || workload.Kind(o).Kind == "" {
			return req, fmt.Errorf("the %s of the AdmissionReview is no object with a kind", key)
		}
		if *to, err = json.Marshal(o); err != nil {
			return req, err
		}
	}
	switch {
	case req.Object == nil && req.OldObject == nil:
		return req, errors.New("the AdmissionReview has neither object nor oldObject")
	case req.Operation == "DELETE" && req.OldObject == nil:
		return req, errors.New("the AdmissionReview is of a DELETE and has no oldObject")
	}
	if _, ok := raw["userInfo"]; !ok {
		raw["userInfo"] = map[string]any{}
	}
	req.Review, err = json.Marshal(raw)
	return req, err
}
