package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Projects keeps what projects, the first parts of repositories' names, are set to.
// Results are JSON documents.
type Projects interface {
	// List lists projects that are set to anything, by name behind the given one, at
	// most n.
	List(ctx context.Context, after string, n int) (any, error)
	// PullPolicy tells what a project asks of pulls; one that asks nothing is off.
	PullPolicy(ctx context.Context, project string) (any, error)
	SetPullPolicy(ctx context.Context, actor gatehouse.Actor, project string, mode gatehouse.PullMode, policies []string) (any, error)
	DeletePullPolicy(ctx context.Context, actor gatehouse.Actor, project string) error
	// ImmutableTags tells which tags of a project, once pushed, never move or go.
	ImmutableTags(ctx context.Context, project string) (any, error)
	// SetImmutableTags sets them; no patterns: none.
	SetImmutableTags(ctx context.Context, actor gatehouse.Actor, project string, tags gatehouse.TagPatterns) (any, error)
}

const (
	projectSettingsMax = 64 << 10 // bytes of a body
	projectPoliciesMax = 100      // policies that one project names
	policyNameMax      = 253      // bytes, as Kubernetes has them
)

// policyNames are names of policies, or "all", which is none of them.
type policyNames []string

// UnmarshalJSON reads a list of names, or "all".
func (p *policyNames) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*p = policyNames{one}
	} else if err := json.Unmarshal(b, (*[]string)(p)); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, `policies is neither "all" nor a list of names`)
	}
	if len(*p) == 1 && (*p)[0] == "all" {
		*p = nil
	}
	return nil
}

func projectOf(r *http.Request) (string, error) {
	name := r.PathValue("project")
	if _, err := gatehouse.ParseRepo(name); err != nil || strings.Contains(name, "/") {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "project %.100q is not the first part of a repository's name", name)
	}
	return name, nil
}

func (h handler) projectList(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	v, err := h.Projects.List(r.Context(), r.URL.Query().Get("after"), n)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) pullPolicyShow(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	return showProject(w, r, actor, h.Projects.PullPolicy)
}

// showProject answers with what a project is set to.
func showProject(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor, get func(context.Context, string) (any, error)) error {
	if err := known(actor); err != nil {
		return err
	}
	project, err := projectOf(r)
	if err != nil {
		return err
	}
	v, err := get(r.Context(), project)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

// setProject reads into in what a project shall be set to, and answers with what it is
// then.
func setProject(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor, in any, set func(project string) (any, error)) error {
	if err := admin(actor); err != nil {
		return err
	}
	project, err := projectOf(r)
	if err != nil {
		return err
	}
	body, err := readAll(w, r, projectSettingsMax)
	if err != nil {
		return err
	}
	if err := strictJSON(body, in); err != nil {
		return err
	}
	v, err := set(project)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) pullPolicyPut(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	var in struct {
		Mode     string      `json:"mode"`
		Policies policyNames `json:"policies"`
	}
	return setProject(w, r, actor, &in, func(project string) (any, error) {
		mode, err := gatehouse.ParsePullMode(in.Mode)
		if err != nil {
			return nil, err
		}
		if len(in.Policies) > projectPoliciesMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%d policies, %d at most", len(in.Policies), projectPoliciesMax)
		}
		slices.Sort(in.Policies)
		in.Policies = slices.Compact(in.Policies)
		for _, name := range in.Policies {
			if name == "" || len(name) > policyNameMax || name == "all" {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%.50q is not the name of a policy", name).WithHint(`leave policies out, or say "all", for all of them`)
			}
		}
		return h.Projects.SetPullPolicy(r.Context(), actor, project, mode, in.Policies)
	})
}

func (h handler) pullPolicyDelete(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	project, err := projectOf(r)
	if err != nil {
		return err
	}
	if err := h.Projects.DeletePullPolicy(r.Context(), actor, project); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h handler) immutableTagsShow(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	return showProject(w, r, actor, h.Projects.ImmutableTags)
}

func (h handler) immutableTagsPut(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	var in struct {
		Tags *[]string `json:"tags"`
	}
	return setProject(w, r, actor, &in, func(project string) (any, error) {
		if in.Tags == nil { // would open all tags, and may be a mistake
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "tags is missing").WithHint("an empty list says that no tag is immutable")
		}
		tags, err := gatehouse.ParseTagPatterns(*in.Tags)
		if err != nil {
			return nil, err
		}
		return h.Projects.SetImmutableTags(r.Context(), actor, project, tags)
	})
}

// strictJSON reads a body in which every field means something: a misspelt one
// would set what nobody wanted.
func strictJSON(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if gatehouse.CodeOf(err) == gatehouse.CodeInvalid {
			return err
		}
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the body is not what is expected: %w", err)
	}
	return nil
}
