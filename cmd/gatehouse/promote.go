package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// promoting are the flags of promote.
type promoting struct {
	asking
	policies        []string
	dryRun          bool
	allowIncomplete bool
	noClobber       bool
}

// promotionInfo is a promotion in the server's answers.
type promotionInfo struct {
	ID          int64            `json:"id,omitempty"`
	DryRun      bool             `json:"dryRun,omitempty"`
	Unchanged   bool             `json:"unchanged,omitempty"`
	Source      string           `json:"source"`
	Destination string           `json:"destination"`
	Digest      gatehouse.Digest `json:"digest"`
	Decision    struct {
		ID       string            `json:"id"`
		Verdict  gatehouse.Verdict `json:"verdict"`
		Policies []string          `json:"policies"`
	} `json:"decision"`
	Previous    gatehouse.Digest   `json:"previous,omitempty"`
	Attestation gatehouse.Digest   `json:"attestation,omitempty"`
	Manifests   int                `json:"manifests"`
	Attached    map[string]int     `json:"attached"`
	Reasons     []gatehouse.Reason `json:"reasons,omitempty"`
}

func (a *app) promoteCmd() *cobra.Command {
	var q promoting
	cmd := q.bind(&cobra.Command{
		Use:   "promote SRC DST",
		Short: "copy an image to another repository once it passes its gates, and sign that it did",
		Long: `The server judges SRC by all policies in force, as if a Pod would run it, and by the
pull policy of its project, and asks for a whole scan. Policies that --policy names have
to be among those that speak of the image. If the image passes, it is copied to
DST with all its platforms, signatures, attestations and SBOMs in one step, and the
server attaches a signed statement of the promotion. If it does not, nothing is copied
and the exit code is 1.

SRC and DST are on one server: a registry in front of DST says which, unless --server
does. docs/promote.md tells what the statement says and how to verify it.`,
		Example: `  gatehouse promote staging/app:v1 production/app:v1
  gatehouse promote registry.example/staging/app:v1 registry.example/production/app:v1 --dry-run
  gatehouse promote team/app@sha256:4f53… production/app:v1 --policy no-critical`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.promote(cmd, q, args[0], args[1]) },
	})
	cmd.Flags().StringArrayVar(&q.policies, "policy", nil, "a policy that must speak of the image; may be repeated (all in force judge in any case)")
	cmd.Flags().BoolVar(&q.dryRun, "dry-run", false, "judge, and tell what would be copied")
	cmd.Flags().BoolVar(&q.allowIncomplete, "allow-incomplete", false, "promote an image that has not been scanned whole; takes an administrator, and the statement says so")
	cmd.Flags().BoolVar(&q.noClobber, "no-clobber", false, "refuse to move a tag that points at another image")
	return cmd
}

func (a *app) promote(cmd *cobra.Command, q promoting, src, dst string) error {
	q.asking = q.at(cmd, dst)
	c, err := a.asker(q.asking)
	if err != nil {
		return err
	}
	p, refused, err := promoteAt(cmd.Context(), c, map[string]any{
		"source": src, "destination": dst, "policies": q.policies, "dryRun": q.dryRun,
		"allowIncomplete": q.allowIncomplete, "noClobber": q.noClobber,
	})
	if err != nil {
		return err
	}
	if refused != nil {
		err := a.show(q.asking, refused, func() error { return a.refusedPromotion(src, refused.Decision) })
		if err != nil {
			return err
		}
		return answerNo{code: 1}
	}
	return a.show(q.asking, p, func() error { return a.promoted(p) })
}

// promotionRefusal is the answer of a server whose gates say no.
type promotionRefusal struct {
	Decision *gatehouse.Decision `json:"decision"`
}

// promoteAt asks the server. refused is set where the gates say no.
func promoteAt(ctx context.Context, c *client, in any) (p promotionInfo, refused *promotionRefusal, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return p, nil, err
	}
	res, err := c.send(ctx, http.MethodPost, "/api/v1/promotions", nil, bytes.NewReader(body))
	if err != nil {
		return p, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return p, nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's answer broke off: %w", err)
	}
	if res.StatusCode == http.StatusForbidden {
		var r promotionRefusal
		if json.Unmarshal(answer, &r) == nil && r.Decision != nil {
			return p, &r, nil
		}
	}
	if res.StatusCode >= 300 {
		return p, nil, c.problem(res, answer)
	}
	if err := json.Unmarshal(answer, &p); err != nil {
		return p, nil, fmt.Errorf("the server's answer is not what this version expects: %w", err)
	}
	return p, nil, nil
}

func (a *app) refusedPromotion(src string, d *gatehouse.Decision) error {
	lines := []string{fmt.Sprintf("denied: %s is not promoted (decision %s)", src, d.ID)}
	for _, r := range d.Reasons {
		if r.Verdict != gatehouse.Deny {
			continue
		}
		by := ""
		if r.Policy != "" {
			by = "policy " + r.Policy + ": "
		}
		lines = append(lines, fmt.Sprintf("  %s%s [%s]", by, oneLine(r.Message), r.Code))
		if r.Hint != "" {
			lines = append(lines, "    hint: "+oneLine(r.Hint))
		}
	}
	_, err := fmt.Fprintln(a.stdout, report.PrintableLines(strings.Join(lines, "\n")))
	return err
}

func (a *app) promoted(p promotionInfo) error {
	verb := "promoted"
	switch {
	case p.DryRun:
		verb = "would promote"
	case p.Unchanged:
		verb = "promoted before, nothing to do:"
	}
	rows := []string{fmt.Sprintf("%s %s to %s", verb, p.Source, p.Destination), "  digest\t" + string(p.Digest)}
	if p.Previous != "" && p.Previous != p.Digest {
		rows = append(rows, "  was\t"+string(p.Previous))
	}
	rows = append(rows, fmt.Sprintf("  decision\t%s: %s by %s", p.Decision.ID, p.Decision.Verdict, listed(p.Decision.Policies)))
	for _, r := range p.Reasons {
		if r.Verdict == gatehouse.Warn {
			rows = append(rows, "  warning\t"+report.Printable(oneLine(r.Message)))
		}
	}
	rows = append(rows, fmt.Sprintf("  copied\t%s%s", counted(int64(p.Manifests), "manifest"), attachedTo(p.Attached)))
	if p.Attestation != "" {
		rows = append(rows, "  statement\t"+string(p.Attestation))
	}
	return a.columns(rows...)
}

func listed(names []string) string {
	if len(names) == 0 {
		return "no policy by name"
	}
	return strings.Join(names, ", ")
}

// attachedTo says what came along.
func attachedTo(attached map[string]int) string {
	var parts []string
	for kind, n := range attached {
		parts = append(parts, fmt.Sprintf("%d × %s", n, kind))
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return ", with " + strings.Join(parts, ", ")
}
