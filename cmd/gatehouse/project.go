package main

import (
	"bytes"
	"cmp"
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
Whoever may push may read anyway, in order to sign. docs/policies.md has the rules.`,
		Example: `  gatehouse project update team --pull-policy enforce
  gatehouse project update team --pull-policy warn --policies production,scanned
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

func (p pullPolicyInfo) changed() string {
	if p.UpdatedAt.IsZero() {
		return "never"
	}
	return fmt.Sprintf("%s by %s", p.UpdatedAt.UTC().Format(time.RFC3339), cmp.Or(p.UpdatedBy, "-"))
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
				Name       string         `json:"name"`
				PullPolicy pullPolicyInfo `json:"pullPolicy"`
			}
			all, err := askAll[project](cmd.Context(), c, "/api/v1/projects", url.Values{}, "projects", "after")
			if err != nil {
				return err
			}
			return a.show(q, all, func() error {
				rows := []string{"PROJECT\tPULL POLICY\tPOLICIES\tCHANGED"}
				for _, p := range all {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s", p.Name, p.PullPolicy.Mode, p.PullPolicy.names(), p.PullPolicy.changed()))
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
	return "/api/v1/projects/" + name + "/pull-policy", nil
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
			var p pullPolicyInfo
			if err := c.do(cmd.Context(), "GET", path, nil, nil, &p); err != nil {
				return err
			}
			return a.show(q, p, func() error { return a.projectTable(p) })
		},
	})
}

func (a *app) projectTable(p pullPolicyInfo) error {
	rows := []string{"Project:\t" + p.Project, "Pull policy:\t" + p.Mode}
	if p.Mode != gatehouse.PullOff.String() {
		rows = append(rows, "Policies:\t"+p.names())
	}
	return a.columns(append(rows, "Changed:\t"+p.changed())...)
}

func (a *app) projectUpdateCmd() *cobra.Command {
	var q asking
	var mode string
	var policies []string
	cmd := q.bind(&cobra.Command{
		Use:   "update NAME",
		Short: "say what a project asks of an image before it may be pulled",
		Long: `With --pull-policy enforce an image of the project may be pulled if every policy that
speaks of it allows it, and at least one does; those of --policies, or all that are
in force. With warn it is served with a warning. off asks nothing.`,
		Example: `  gatehouse project update team --pull-policy enforce
  gatehouse project update team --pull-policy warn --policies production,scanned
  gatehouse project update team --pull-policy off`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := projectPath(args[0])
			if err != nil {
				return err
			}
			if _, err := gatehouse.ParsePullMode(mode); err != nil {
				return err
			}
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			body, err := json.Marshal(map[string]any{"mode": mode, "policies": policies})
			if err != nil {
				return err
			}
			var p pullPolicyInfo
			if err := c.do(cmd.Context(), "PUT", path, nil, bytes.NewReader(body), &p); err != nil {
				return err
			}
			return a.show(q, p, func() error { return a.projectTable(p) })
		},
	})
	cmd.Flags().StringVar(&mode, "pull-policy", "", "enforce, warn or off (required)")
	cmd.Flags().StringSliceVar(&policies, "policies", []string{"all"}, "names of the policies that are asked")
	_ = cmd.MarkFlagRequired("pull-policy") // fails only for a flag that does not exist
	return cmd
}
