package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// discoveryMax bounds an answer of discovery, in bytes, and groupsMax the groups that
// are asked.
const (
	discoveryMax = 4 << 20
	groupsMax    = 500
)

// ServedKind is a kind that the cluster serves, and where.
type ServedKind struct {
	Kind     gatehouse.ObjectKind
	Resource Resource
}

// Kinds lists what the cluster serves, can list and watch, of kinds; an empty group,
// version or kind, or "*", is any, of which only the preferred version of each group
// counts. Errors: CodeTooLarge for more than max; what could be told comes with an error.
func (c *Client) Kinds(ctx context.Context, kinds []gatehouse.ObjectKind, max int) (out []ServedKind, err error) {
	if len(kinds) == 0 {
		return nil, nil
	}
	groups, err := c.groups(ctx)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, g := range groups {
		for i, version := range g.versions {
			if !slices.ContainsFunc(kinds, func(k gatehouse.ObjectKind) bool {
				return anyOr(k.Group, g.name) && (k.Version == version || anyOr(k.Version, version) && i == 0)
			}) {
				continue
			}
			served, err := c.resources(ctx, g.name, version)
			failed = append(failed, err)
			for _, s := range served {
				if slices.ContainsFunc(kinds, func(k gatehouse.ObjectKind) bool {
					return anyOr(k.Group, g.name) && anyOr(k.Version, version) && anyOr(k.Kind, s.Kind.Kind)
				}) {
					out = append(out, s)
				}
			}
			if len(out) > max {
				return out[:max], gatehouse.Errorf(gatehouse.CodeTooLarge, "policies look up more than %d kinds of the cluster", max)
			}
		}
	}
	return out, errors.Join(failed...)
}

func anyOr(want, has string) bool { return want == "" || want == "*" || want == has }

// apiGroup is a group with its versions, the preferred one first.
type apiGroup struct {
	name     string
	versions []string
}

func (c *Client) groups(ctx context.Context) ([]apiGroup, error) {
	var list struct {
		Groups []struct {
			Name     string `json:"name"`
			Versions []struct {
				Version string `json:"version"`
			} `json:"versions"`
			Preferred struct {
				Version string `json:"version"`
			} `json:"preferredVersion"`
		} `json:"groups"`
	}
	if err := c.discover(ctx, "/apis", &list); err != nil {
		return nil, err
	}
	out := []apiGroup{{"", []string{"v1"}}}
	for _, g := range list.Groups {
		if len(out) >= groupsMax {
			break
		}
		one := apiGroup{g.Name, []string{g.Preferred.Version}}
		for _, v := range g.Versions {
			if v.Version != g.Preferred.Version {
				one.versions = append(one.versions, v.Version)
			}
		}
		out = append(out, one)
	}
	return out, nil
}

func (c *Client) resources(ctx context.Context, group, version string) (out []ServedKind, err error) {
	path := "/apis/" + group + "/" + version
	if group == "" {
		path = "/api/" + version
	}
	var list struct {
		Resources []struct {
			Name  string   `json:"name"`
			Kind  string   `json:"kind"`
			Verbs []string `json:"verbs"`
		} `json:"resources"`
	}
	if err := c.discover(ctx, path, &list); err != nil {
		return nil, err
	}
	for _, r := range list.Resources {
		if strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "list") || !slices.Contains(r.Verbs, "watch") {
			continue
		}
		out = append(out, ServedKind{
			Kind:     gatehouse.ObjectKind{Group: group, Version: version, Kind: r.Kind},
			Resource: Resource{Group: group, Version: version, Resource: r.Name},
		})
	}
	return out, nil
}

// discover reads one answer of discovery.
func (c *Client) discover(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.url, "/")+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.o.Transport.RoundTrip(req)
	if err != nil {
		return gatehouse.Errorf(codeOf(err), "couldn't ask %s what it serves: %w", c.url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, discoveryMax))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't ask %s what it serves at %s: %w", c.url, path, err)
	}
	return nil
}
