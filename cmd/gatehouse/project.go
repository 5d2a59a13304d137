package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
)

func (a *app) projectCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "project",
		Short: "what the projects of a server, the first parts of repositories' names, are set to",
		Long: `A project is the first part of a repository's name: team/app belongs to team. Its
pull policy says what becomes of a pull of an image that the policies in force do
not allow: off, warn (it is served, with a warning) or enforce (it is denied).
Whoever may push may read anyway, in order to sign. Its immutable tags, once pushed,
never move or go. docs/policies.md has the rules.`,
		Example: `  gatehouse project update team --pull-policy enforce
  gatehouse project update team --pull-policy warn --policies production,scanned
  gatehouse project update team --immutable-tags 'v*,release-*'
  gatehouse project show team`,
	})
	cmd.AddCommand(a.projectListCmd(), a.projectShowCmd(), a.projectUpdateCmd())
	return cmd
}

// pullPolicyInfo is what a project asks of pulls, in the server's answers.
type pullPolicyInfo struct {
	Project   string          `json:"project"`
	Mode      string          `json:"mode"`
	Policies  json.RawMessage `json:"policies"` // a list of names, or "all"
	UpdatedBy string          `json:"updatedBy,omitempty"`
	UpdatedAt time.Time       `json:"updatedAt,omitzero"`
}

// names are the policies in words.
func (p pullPolicyInfo) names() string {
	var list []string
	if json.Unmarshal(p.Policies, &list) != nil || len(list) == 0 {
		return "all"
	}
	return strings.Join(list, ", ")
}

// immutableTagsInfo is which tags of a project are immutable, in the server's answers.
type immutableTagsInfo struct {
	Tags      []string  `json:"tags"`
	UpdatedBy string    `json:"updatedBy,omitempty"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
}

// projectInfo is all that a project is set to.
type projectInfo struct {
	pullPolicyInfo
	ImmutableTags immutableTagsInfo `json:"immutableTags"`
}

func (p projectInfo) immutable() string {
	return cmp.Or(strings.Join(p.ImmutableTags.Tags, ", "), "none")
}

// changed is when anything was set last, and by whom.
func (p projectInfo) changed() string {
	at, by := p.UpdatedAt, p.UpdatedBy
	if p.ImmutableTags.UpdatedAt.After(at) {
		at, by = p.ImmutableTags.UpdatedAt, p.ImmutableTags.UpdatedBy
	}
	if at.IsZero() {
		return "never"
	}
	return fmt.Sprintf("%s by %s", at.UTC().Format(time.RFC3339), cmp.Or(by, "-"))
}

func (a *app) projectListCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "list",
		Short: "list the projects that are set to anything",
		Example: `  gatehouse project list
  gatehouse project list --server https://registry.example --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			type project struct {
				Name          string            `json:"name"`
				PullPolicy    pullPolicyInfo    `json:"pullPolicy"`
				ImmutableTags immutableTagsInfo `json:"immutableTags"`
			}
			all, err := askAll[project](cmd.Context(), c, "/api/v1/projects", url.Values{}, "projects", "after")
			if err != nil {
				return err
			}
			return a.show(q, all, func() error {
				rows := []string{"PROJECT\tPULL POLICY\tPOLICIES\tIMMUTABLE TAGS\tCHANGED"}
				for _, one := range all {
					p := projectInfo{one.PullPolicy, one.ImmutableTags}
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", one.Name, p.Mode, p.names(), p.immutable(), p.changed()))
				}
				return a.columns(rows...)
			})
		},
	})
}

func projectPath(name string) (string, error) {
	if _, err := gatehouse.ParseRepo(name); err != nil || strings.Contains(name, "/") {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%q is not the first part of a repository's name", name).WithHint("team/app belongs to the project team")
	}
	return "/api/v1/projects/" + name, nil
}

// projectAt asks what a project is set to.
func projectAt(ctx context.Context, c *client, path string) (p projectInfo, err error) {
	if err = c.do(ctx, "GET", path+"/pull-policy", nil, nil, &p.pullPolicyInfo); err == nil {
		err = c.do(ctx, "GET", path+"/immutable-tags", nil, nil, &p.ImmutableTags)
	}
	return p, err
}

func (a *app) projectShowCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "show NAME",
		Short: "show what a project is set to",
		Example: `  gatehouse project show team
  gatehouse project show team --format json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := projectPath(args[0])
			if err != nil {
				return err
			}
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			p, err := projectAt(cmd.Context(), c, path)
			if err != nil {
				return err
			}
			return a.show(q, p, func() error { return a.projectTable(p) })
		},
	})
}

func (a *app) projectTable(p projectInfo) error {
	rows := []string{"Project:\t" + p.Project, "Pull policy:\t" + p.Mode}
	if p.Mode != gatehouse.PullOff.String() {
		rows = append(rows, "Policies:\t"+p.names())
	}
	return a.columns(append(rows, "Immutable tags:\t"+p.immutable(), "Changed:\t"+p.changed())...)
}

// projectUpdate is what a project is to be set to; nil: that stays.
type projectUpdate struct {
	pulls *pullPolicyChange
	tags  gatehouse.TagPatterns
}

type pullPolicyChange struct {
	Mode     string   `json:"mode"`
	Policies []string `json:"policies"`
}

// updateOf reads the flags that were given.
func updateOf(given func(flag string) bool, pulls pullPolicyChange, tags []string) (u projectUpdate, err error) {
	if given("policies") && !given("pull-policy") {
		return u, gatehouse.Errorf(gatehouse.CodeInvalid, "--policies goes with --pull-policy").WithHint("add --pull-policy enforce, or warn")
	}
	if given("pull-policy") {
		if _, err := gatehouse.ParsePullMode(pulls.Mode); err != nil {
			return u, err
		}
		u.pulls = &pulls
	}
	if given("immutable-tags") {
		patterns, err := gatehouse.ParseTagPatterns(tags)
		if err != nil {
			return u, err
		}
		u.tags = append(gatehouse.TagPatterns{}, patterns...) // not nil
	}
	if u.pulls == nil && u.tags == nil {
		return u, gatehouse.Errorf(gatehouse.CodeInvalid, "nothing is to be changed").WithHint("give --pull-policy, --immutable-tags or both")
	}
	return u, nil
}

// put sets it.
func (u projectUpdate) put(ctx context.Context, c *client, path string) error {
	send := func(name string, body any) error {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		return c.do(ctx, "PUT", path+"/"+name, nil, bytes.NewReader(b), nil)
	}
	if u.pulls != nil {
		if err := send("pull-policy", u.pulls); err != nil {
			return err
		}
	}
	if u.tags != nil {
		return send("immutable-tags", map[string]any{"tags": u.tags})
	}
	return nil
}

func (a *app) projectUpdateCmd() *cobra.Command {
	var q asking
	var pulls pullPolicyChange
	var tags []string
	cmd := q.bind(&cobra.Command{
		Use:   "update NAME",
		Short: "say what a project asks of an image before it may be pulled, and which tags never move",
		Long: `With --pull-policy enforce an image of the project may be pulled if every policy that
speaks of it allows it, and at least one does; those of --policies, or all that are
in force. With warn it is served with a warning. off asks nothing.

A tag that one of --immutable-tags matches stays as it was pushed: it cannot be moved to
another image, deleted or restored, nor its image be deleted. * is any text, ? one
character, [0-9] one of several; '' ends it. Tags of signatures and attestations
(sha256-HEX.sig) are never immutable. What is not given stays as it is.`,
		Example: `  gatehouse project update team --pull-policy enforce
  gatehouse project update team --pull-policy warn --policies production,scanned
  gatehouse project update team --pull-policy off
  gatehouse project update team --immutable-tags 'v*,release-*'
  gatehouse project update team --immutable-tags ''`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := projectPath(args[0])
			if err != nil {
				return err
			}
			u, err := updateOf(cmd.Flags().Changed, pulls, tags)
			if err != nil {
				return err
			}
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			if err := u.put(cmd.Context(), c, path); err != nil {
				return err
			}
			p, err := projectAt(cmd.Context(), c, path)
			if err != nil {
				return err
			}
			return a.show(q, p, func() error { return a.projectTable(p) })
		},
	})
	cmd.Flags().StringVar(&pulls.Mode, "pull-policy", "", "enforce, warn or off")
	cmd.Flags().StringSliceVar(&pulls.Policies, "policies", []string{"all"}, "names of the policies that are asked")
	cmd.Flags().StringSliceVar(&tags, "immutable-tags", nil, "patterns of the tags that never move or go; '' for none")
	return cmd
}
