package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
)

func (a *app) explainCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "explain DECISION_ID",
		Short: "tell why a decision came out as it did",
		Long: `Explain shows a decision with all its reasons, and how it was come to: each policy,
the images that it speaks of, the authorities whose word it asks for, what was
attached to the image, and what was checked of that. The id of a decision stands at
the end of every denial.`,
		Example: `  gatehouse explain 5f1c0e7a9b3d5f1c0e7a
  gatehouse explain --server https://registry.example 5f1c0e7a9b3d5f1c0e7a
  gatehouse explain 5f1c0e7a9b3d5f1c0e7a --format json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			var d gatehouse.Decision
			err = c.do(cmd.Context(), "GET", "/api/v1/decisions/"+args[0], nil, nil, &d)
			if gatehouse.CodeOf(err) == gatehouse.CodeNotFound && gatehouse.HintOf(err) == "" {
				return gatehouse.Errorf(gatehouse.CodeNotFound, "%w", err).WithHint("the id stands at the end of the webhook's denial; --server names the server that gave it")
			}
			if err != nil {
				return err
			}
			return a.show(q, d, func() error { return printExplained(a.stdout, d) })
		},
	})
}

// printExplained writes a decision with its reasons, and below them its tree.
func printExplained(w io.Writer, d gatehouse.Decision) error {
	var b strings.Builder
	fmt.Fprintf(&b, "decision  %s\nverdict   %s\nat        %s\npolicies  %s\n", d.ID, d.Verdict, d.At.UTC().Format(time.RFC3339), d.Policies)
	for _, r := range d.Reasons {
		fmt.Fprintf(&b, "\n%-5s  %s", r.Verdict, r.Code)
		for _, part := range []struct{ name, value string }{{"policy", r.Policy}, {"image", r.Image}, {"field", r.Field}, {"why", r.Message}, {"help", r.Hint}} {
			if part.value != "" {
				fmt.Fprintf(&b, "\n       %-7s %s", part.name, plain(part.value))
			}
		}
		for _, e := range r.Evidence {
			fmt.Fprintf(&b, "\n       proof   %s", e)
		}
		b.WriteByte('\n')
	}
	if len(d.Tree) > 0 {
		b.WriteString("\nhow it was come to\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	return printTree(w, d)
}

// printTree writes how a decision was come to.
func printTree(w io.Writer, d gatehouse.Decision) error {
	var b strings.Builder
	printSteps(&b, d.Tree, 1)
	_, err := io.WriteString(w, b.String())
	return err
}

// printSteps writes one line per step, those below it further right.
func printSteps(b *strings.Builder, steps []gatehouse.Step, depth int) {
	for _, s := range steps {
		result := string(s.Result)
		if result == "" {
			result = string(gatehouse.StepFailed)
		}
		fmt.Fprintf(b, "%s%-7s  %s %s", strings.Repeat("  ", depth), result, s.Kind, plain(s.Name))
		if s.Digest != "" && !strings.HasSuffix(s.Name, string(s.Digest)) {
			fmt.Fprintf(b, " %s", s.Digest)
		}
		if s.Message != "" {
			fmt.Fprintf(b, ": %s", plain(s.Message))
		}
		b.WriteByte('\n')
		printSteps(b, s.Steps, depth+1)
	}
}

// plain keeps what others wrote on one line and off the terminal's controls.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// policyExplainCmd is policy test that tells more.
func (a *app) policyExplainCmd() *cobra.Command {
	cmd := a.policyTestCmd()
	cmd.Use = "explain --policy PATH... -f MANIFEST..."
	cmd.Short = "decide about manifests as the webhook would, and tell how it was come to"
	cmd.Long = `Decides as gatehouse policy test does and prints each decision with all its reasons
and the way to it: each policy, the images that it speaks of, the authorities whose
word it asks for, what was attached to the image, and what was checked of that.`
	cmd.Example = `  gatehouse policy explain --policy policies/ -f pod.yaml
  kustomize build . | gatehouse policy explain --policy policies/ -f - --format json`
	_ = cmd.Flags().Set("explain", "true") // fails only for a flag that does not exist
	return cmd
}
