package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cue"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

const policiesMax = 100

// verifyAttestationCmd is `gatehouse verify-attestation --type TYPE IMAGE`.
func (a *app) verifyAttestationCmd() *cobra.Command {
	var o verifyFlags
	var kind string
	var policies []string
	cmd := &cobra.Command{
		Use:   "verify-attestation [--key cosign.pub] --type TYPE IMAGE…",
		Short: "verify what is attested about an image",
		Long: `Verify-attestation looks for attestations of one predicate type wherever clients
put them, checks them as verify does signatures, and prints each that holds: one
line of JSON, whose payload is the in-toto statement in base64.

A policy (--policy FILE.rego, package signature) has to say allow to each of them:
its input is the statement. One in CUE (--policy FILE.cue) must not contradict it.

Exit code 0: each image has an attestation that holds, and policies allow all of
them. 1: it has none, or a policy does not. 2: it could not be found out.`,
		Example: `  gatehouse verify-attestation --key cosign.pub --type vuln registry.example/app:v1
  gatehouse verify-attestation --key cosign.pub --type slsaprovenance1 --policy builder.rego registry.example/app:v1
  gatehouse verify-attestation --key cosign.pub registry.example/app:v1 | jq -r .payload | base64 -d`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o.registry, func(ctx context.Context) error {
				uri, err := sign.PredicateType(kind)
				if err != nil {
					return err
				}
				rules, err := a.statementRules(policies)
				if err != nil {
					return err
				}
				return a.verifyAll(ctx, cmd, &o, args, func(au gatehouse.Authority) gatehouse.Need {
					return gatehouse.Need{Kind: gatehouse.NeedAttestation, Predicate: uri, Authority: au}
				}, func(v verified) (string, error) { return a.printAttestations(ctx, v, rules) })
			})
		},
	}
	o.bind(cmd)
	bindPredicateType(cmd, &kind)
	cmd.Flags().StringSliceVar(&policies, "policy", nil, "FILE.rego whose data.signature.allow has to be true, or FILE.cue that has to fit")
	return cmd
}

// statementRules are the policies that statements have to pass.
type statementRules struct {
	rego *rego.StatementRules // nil: none in Rego
	cue  []*cue.Policy
}

// statementRules loads them, nil for none.
func (a *app) statementRules(paths []string) (*statementRules, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	if len(paths) > policiesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "%d policies, %d at most", len(paths), policiesMax)
	}
	rules := &statementRules{}
	files := map[string][]byte{}
	for _, p := range paths {
		b, err := a.readInput(p, rego.ModuleSizeMax)
		switch ext := strings.ToLower(filepath.Ext(p)); {
		case ext != ".rego" && ext != ".cue":
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "--policy %s is no .rego or .cue file", p).WithHint("policies are files whose name ends in .rego or .cue")
		case err != nil:
			return nil, err
		case ext == ".rego":
			files[p] = b
		default:
			policy, problems := cue.Load(p, string(b))
			if policy == nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s", problems[0]).WithHint("%s", problems[0].Hint)
			}
			rules.cue = append(rules.cue, policy)
		}
	}
	if len(files) == 0 {
		return rules, nil
	}
	var err error
	rules.rego, err = rego.LoadStatementRules(files)
	return rules, err
}

// judge returns why a statement is not allowed, nothing where it is.
func (r *statementRules) judge(ctx context.Context, statement []byte) (why string, err error) {
	if r.rego != nil {
		if why, err = r.rego.Judge(ctx, statement); why != "" || err != nil {
			return why, err
		}
	}
	for _, p := range r.cue {
		answer, err := p.Eval(ctx, statement, time.Time{})
		if err != nil {
			return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the policy cannot be evaluated: %w", err)
		}
		if !answer.Compliant {
			return strings.Join(answer.Errors, "; "), nil
		}
	}
	return "", nil
}

// printAttestations prints those that hold, or returns which policy objects.
func (a *app) printAttestations(ctx context.Context, v verified, rules *statementRules) (string, error) {
	if rules != nil {
		for _, e := range v.evidence {
			why, err := rules.judge(ctx, e.Payload)
			if err != nil {
				return "", err
			}
			if why != "" {
				return fmt.Sprintf("error: not allowed: the attestation %s of %s holds, and the policy does not allow it: %s\nhint: the policy's input is the statement; `gatehouse verify-attestation` without --policy prints it",
					e.Artifact, v.ref, why), nil
			}
		}
		a.say("  - The policies allow each of them")
	}
	for _, e := range v.evidence {
		line, err := json.Marshal(struct {
			PayloadType string `json:"payloadType"`
			Payload     string `json:"payload"`
		}{"application/vnd.in-toto+json", base64.StdEncoding.EncodeToString(e.Payload)})
		if err != nil {
			return "", err
		}
		fmt.Fprintln(a.stdout, string(line))
	}
	return "", nil
}
