package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
)

func (a *app) exceptionCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "exception",
		Short: "findings that somebody accepts on a server: where, why, who and until when",
		Long: `An exception takes a finding out of the verdicts and policies of a server, in a
project, a repository, an image or a package. Reports go on showing the finding,
with the exception's reason. docs/vex.md tells what else suppresses findings.`,
		Example: `  gatehouse exception create CVE-2005-2541 --project team --package tar --reason "tar is not run" --expires 90d
  gatehouse exception list
  gatehouse exception delete 7`,
	})
	cmd.AddCommand(a.exceptionListCmd(), a.exceptionShowCmd(), a.exceptionCreateCmd(), a.exceptionDeleteCmd())
	return cmd
}

// exceptionInfo is one exception in the server's questions and answers.
type exceptionInfo struct {
	ID         int64            `json:"id,omitempty"`
	Finding    string           `json:"finding"`
	Project    string           `json:"project,omitempty"`
	Repository string           `json:"repository,omitempty"`
	Digest     gatehouse.Digest `json:"digest,omitempty"`
	Package    string           `json:"package,omitempty"`
	Reference  string           `json:"reference,omitempty"` // in questions
	Reason     string           `json:"reason"`
	Author     string           `json:"author,omitempty"`
	CreatedAt  time.Time        `json:"createdAt,omitzero"`
	ExpiresAt  time.Time        `json:"expiresAt,omitzero"`
	Expired    bool             `json:"expired,omitempty"`
}

// scope is where the exception holds, in words.
func (e exceptionInfo) scope() string {
	var parts []string
	if e.Project != "" {
		parts = append(parts, "project "+e.Project)
	}
	switch {
	case e.Repository != "" && e.Digest != "":
		parts = append(parts, "image "+e.Repository+"@"+string(e.Digest))
	case e.Repository != "":
		parts = append(parts, "repository "+e.Repository)
	case e.Digest != "":
		parts = append(parts, "image "+string(e.Digest))
	}
	if e.Package != "" {
		parts = append(parts, "package "+e.Package)
	}
	return strings.Join(parts, ", ")
}

func (e exceptionInfo) until() string {
	switch {
	case e.ExpiresAt.IsZero():
		return "never"
	case e.Expired:
		return e.ExpiresAt.UTC().Format(time.RFC3339) + " (expired)"
	}
	return e.ExpiresAt.UTC().Format(time.RFC3339)
}

func (a *app) exceptionListCmd() *cobra.Command {
	var q asking
	var finding, repository string
	cmd := q.bind(&cobra.Command{
		Use:   "list",
		Short: "list exceptions, also those that have expired",
		Example: `  gatehouse exception list
  gatehouse exception list --finding CVE-2005-2541 --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			all, err := askAll[exceptionInfo](cmd.Context(), c, "/api/v1/exceptions", url.Values{"finding": {finding}, "repository": {repository}}, "exceptions", "after")
			if err != nil {
				return err
			}
			return a.show(q, all, func() error {
				rows := []string{"ID\tFINDING\tSCOPE\tBY\tEXPIRES\tREASON"}
				for _, e := range all {
					rows = append(rows, fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s", e.ID, e.Finding, e.scope(), cmp.Or(e.Author, "-"), e.until(), strings.Join(strings.Fields(e.Reason), " ")))
				}
				return a.columns(rows...)
			})
		},
	})
	cmd.Flags().StringVar(&finding, "finding", "", "only those of this finding (CVE id)")
	cmd.Flags().StringVar(&repository, "repository", "", "only those whose scope names this repository")
	return cmd
}

func (a *app) exceptionShowCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "show ID",
		Short: "show one exception",
		Example: `  gatehouse exception show 7
  gatehouse exception show 7 --format json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := exceptionNumber(args[0])
			if err != nil {
				return err
			}
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			var e exceptionInfo
			if err := c.do(cmd.Context(), "GET", "/api/v1/exceptions/"+id, nil, nil, &e); err != nil {
				return err
			}
			return a.show(q, e, func() error { return a.exceptionTable(e) })
		},
	})
}

func (a *app) exceptionTable(e exceptionInfo) error {
	return a.columns(fmt.Sprintf("ID:\t%d", e.ID), "Finding:\t"+e.Finding, "Scope:\t"+e.scope(), "Reason:\t"+strings.Join(strings.Fields(e.Reason), " "),
		fmt.Sprintf("Created:\t%s by %s", e.CreatedAt.UTC().Format(time.RFC3339), cmp.Or(e.Author, "-")), "Expires:\t"+e.until())
}

func exceptionNumber(s string) (string, error) {
	if id, err := strconv.ParseInt(s, 10, 64); err != nil || id <= 0 {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%q is not the number of an exception", s).WithHint("gatehouse exception list shows the numbers")
	}
	return s, nil
}

func (a *app) exceptionCreateCmd() *cobra.Command {
	var q asking
	var e exceptionInfo
	var expires string
	cmd := q.bind(&cobra.Command{
		Use:   "create FINDING",
		Short: "accept a finding by its id or an alias, in the given scope",
		Long: `Accepts a finding (CVE-…, GHSA-…, or the id of a secret, misconfiguration or
licence). What is given of --project, --repository, --image and --package must all
fit; at least one is needed.`,
		Example: `  gatehouse exception create CVE-2005-2541 --project team --package tar --reason "tar is not run" --expires 90d
  gatehouse exception create CVE-2021-23337 --repository team/app --package pkg:npm/lodash@4.17.20 --reason "no templates"
  gatehouse exception create GHM001 --image team/app@sha256:4f53… --reason "needs root to bind its port" --expires 2027-06-30`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			e.Finding = args[0]
			if e.ExpiresAt, err = expiryTime(expires, time.Now()); err != nil {
				return err
			}
			return a.exceptionCreate(cmd.Context(), q.at(cmd, e.Reference), e)
		},
	})
	f := cmd.Flags()
	f.StringVar(&e.Reason, "reason", "", "why it is acceptable (required)")
	f.StringVar(&e.Project, "project", "", "the first part of repositories' names")
	f.StringVar(&e.Repository, "repository", "", "a repository")
	f.StringVar(&e.Reference, "image", "", "an image, REPOSITORY@DIGEST")
	f.StringVar(&e.Package, "package", "", "a package: its package URL, with or without a version, or its name")
	f.StringVar(&expires, "expires", "", "until when: 90d, 2027-06-30 or a time; empty: for ever")
	_ = cmd.MarkFlagRequired("reason") // fails only for a flag that does not exist
	return cmd
}

func (a *app) exceptionCreate(ctx context.Context, q asking, e exceptionInfo) error {
	c, err := a.asker(q)
	if err != nil {
		return err
	}
	var made exceptionInfo
	if err := c.post(ctx, "/api/v1/exceptions", e, &made); err != nil {
		return err
	}
	return a.show(q, made, func() error {
		a.done("exception %d: %s is accepted in %s, expires %s", made.ID, made.Finding, made.scope(), made.until())
		return nil
	})
}

// expiryTime reads "90d", a day, at whose beginning (UTC) it ends, or a time.
func expiryTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		const daysMax = 36_500
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= daysMax {
			return now.AddDate(0, 0, n).UTC().Truncate(time.Second), nil
		}
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, gatehouse.Errorf(gatehouse.CodeInvalid, "--expires %q is not a time", s).WithHint("write 90d, 2027-06-30 or 2027-06-30T12:00:00Z")
}

func (a *app) exceptionDeleteCmd() *cobra.Command {
	var q asking
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "end an exception; the audit record keeps it",
		Example: `  gatehouse exception delete 7
  gatehouse exception delete --server https://registry.example 7`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := exceptionNumber(args[0])
			if err != nil {
				return err
			}
			c, err := a.client(q.server)
			if err != nil {
				return err
			}
			if err := c.do(cmd.Context(), "DELETE", "/api/v1/exceptions/"+id, nil, nil, nil); err != nil {
				return err
			}
			a.done("deleted exception %s", id)
			return nil
		},
	}
	cmd.Flags().StringVar(&q.server, "server", "http://127.0.0.1:5000", "the server (URL)")
	return cmd
}
