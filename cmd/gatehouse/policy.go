package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/fix"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/outside"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
)

func (a *app) policyCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "policy",
		Short: "check, repair and try policies",
		Long: `Policies are ClusterImagePolicy and TrustRoot (policy.sigstore.dev) and
ImageRule (gatehouse.dev) manifests and .rego modules. docs/policies.md explains them.`,
		Example: `  gatehouse policy lint policies/
  gatehouse policy fix pasted.yaml > policy.yaml
  gatehouse policy test --policy policies/ -f pod.yaml`,
	})
	cmd.AddCommand(a.policyTestCmd(), a.policyLintCmd(), a.policyFixCmd(), a.policyExplainCmd(), a.policySimulateCmd())
	return cmd
}

// policyLoader loads policies as a server would, whose own Sigstore is trusted by
// the trusted root in the file at path; "" = it has none. What policies refer to is
// read where it lies; Secrets and ConfigMaps have to lie beside them.
func (a *app) policyLoader(path string) (load.Loader, error) {
	refers := outside.Reader{Transport: tracer{a, a.egress().Transport()}, Keys: a.keyOptions()}
	l := load.Loader{Outside: refers.Outside()}
	if path == "" {
		return l, nil
	}
	root, err := a.readInput(path, trustedRootSizeMax)
	if err == nil {
		_, err = trust.Parse(root)
	}
	l.Outside.Trust = root
	return l, err
}

const (
	trustedRootSizeMax  = 1 << 20
	trustedRootFlagHelp = "trusted root (trusted_root.json) that counts where a policy names none"
)

func (a *app) policyLintCmd() *cobra.Command {
	var trustedRoot string
	cmd := &cobra.Command{
		Use:   "lint PATH...",
		Short: "check policies of every kind",
		Long: `Prints "path:line: field: problem" and a hint for everything that is wrong.
Exits 0 if the policies work (perhaps with warnings), 1 if not, 2 if they
cannot be read.`,
		Example: `  gatehouse policy lint policies/
  gatehouse policy lint require-signature.yaml trusted-registries.rego`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, paths []string) error {
			files, unread := load.Read(paths...)
			if len(unread) > 0 {
				return gatehouse.Errorf(gatehouse.CodeNotFound, "couldn't read policies: %s", unread[0]).WithHint("name files or directories that exist and may be read")
			}
			loader, err := a.policyLoader(trustedRoot)
			if err != nil {
				return err
			}
			set, problems := loader.Load(files, gatehouse.Deny)
			if err := printProblems(a.stdout, problems); err != nil {
				return err
			}
			if !set.Complete || len(decide.Errors(problems)) > 0 {
				return answerNo{code: 1}
			}
			a.say("policies: %d, warnings: %d", len(set.Policies), len(problems))
			return nil
		},
	}
	cmd.Flags().StringVar(&trustedRoot, "trusted-root", "", trustedRootFlagHelp)
	return cmd
}

// printProblems writes one line per problem, and its hint below.
func printProblems(w io.Writer, problems []decide.Problem) error {
	for _, p := range problems {
		if _, err := fmt.Fprintln(w, p); err != nil {
			return err
		}
		if p.Hint == "" {
			continue
		}
		if _, err := fmt.Fprintln(w, "hint:", p.Hint); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) policyFixCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "fix PATH",
		Short: "print a policy with what can be repaired repaired",
		Long: `Rebuilds the indentation of a manifest that lost it (pasted from a page or a
chat), and comments out values that a field cannot hold, with the reason. The
file itself stays as it is. What is left to do by hand goes to standard error.`,
		Example: `  gatehouse policy fix pasted.yaml > policy.yaml
  gatehouse policy fix - < pasted.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := a.readInput(args[0], manifest.FileSizeMax)
			if err != nil {
				return err
			}
			text, notes, err := fix.File(args[0], data, load.Grammars())
			if err != nil {
				return err
			}
			if _, err := io.WriteString(a.stdout, text); err != nil {
				return err
			}
			for _, n := range notes {
				fmt.Fprintf(a.stderr, "removed: %s\n", n)
			}
			_, left := load.Load([]load.File{{Path: "(fixed) " + args[0], Data: []byte(text)}}, gatehouse.Deny)
			return printProblems(a.stderr, left)
		},
	}
}

// readInput reads a file, or standard input for "-", of at most max bytes.
func (a *app) readInput(path string, max int64) ([]byte, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "couldn't read: %w", err).WithHint("name a file that exists, or - for standard input")
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, max+1))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read %s: %w", path, err)
	}
	if int64(len(data)) > max {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", path, max)
	}
	return data, nil
}
