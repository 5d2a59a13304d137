package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

// manifestSizeMax bounds one file of objects in bytes.
const manifestSizeMax = 8 << 20

// policyTestOptions are the flags of policy test.
type policyTestOptions struct {
	policies, files   []string
	inventory         []string
	server, db        string
	format, noMatch   string
	namespace, output string
	trustedRoot       string
	insecure          bool
	explain           bool // tell how decisions were come to
	timeout           time.Duration
}

func (a *app) policyTestCmd() *cobra.Command {
	var o policyTestOptions
	cmd := &cobra.Command{
		Use:   "test --policy PATH... -f MANIFEST... | SUITE...",
		Short: "decide about manifests as the webhook would",
		Long: `Decides about each object of the manifests (Pods and everything that holds a
Pod template) by the policies. Signatures are verified against the image's
registry, findings come from the advisory file or from --server.

Exits 0 if everything is admitted, 1 if something is denied, 2 if something is
denied only because it could not be found out.

Or runs Gatekeeper's test suites (kind Suite) that files and directories hold: a
line PASS or FAIL for each case. Exits 0 if all pass, 1 if not.`,
		Example: `  gatehouse policy test --policy policies/ -f pod.yaml
  kustomize build . | gatehouse policy test --policy policies/ -f -
  gatehouse policy test --policy rule.rego -f deploy.yaml --format json
  gatehouse policy test library/general/allowedrepos/suite.yaml
  gatehouse policy test library/`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 0 && len(o.policies)+len(o.files) > 0:
				return gatehouse.Errorf(gatehouse.CodeInvalid, "suites name their policies and objects themselves").
					WithHint("give manifests with -f and policies with --policy, or suites alone")
			case len(args) > 0:
				return a.policySuites(cmd.Context(), o, args)
			case len(o.policies) == 0 || len(o.files) == 0:
				missing := "--policy"
				if len(o.policies) > 0 {
					missing = "--filename"
				}
				return gatehouse.Errorf(gatehouse.CodeInvalid, "required flag %s is missing", missing).
					WithHint("give manifests with -f and policies with --policy, each repeated as often as needed, or suites alone")
			}
			return a.policyTest(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.policies, "policy", nil, "file or directory of policies (repeatable)")
	f.StringArrayVarP(&o.files, "filename", "f", nil, "manifest of objects, - for standard input (repeatable)")
	f.StringArrayVar(&o.inventory, "inventory", nil, "manifest of what else the cluster holds, for policies that look it up (repeatable)")
	f.StringVar(&o.server, "server", "", "match by the advisories of this server (URL)")
	f.StringVar(&o.db, "db", "", "advisory file (default: the one that gatehouse db update writes)")
	f.StringVar(&o.format, "format", "text", "text, json, junit or sarif")
	f.StringVar(&o.noMatch, "no-match", "deny", "what happens to an image that no policy matches: deny, warn or allow")
	f.StringVarP(&o.namespace, "namespace", "n", "default", "namespace of objects that name none")
	f.StringVarP(&o.output, "output", "o", "", "write the result to this file")
	f.StringVar(&o.trustedRoot, "trusted-root", "", trustedRootFlagHelp)
	f.BoolVar(&o.insecure, "insecure", false, "speak to registries without TLS")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "time for each object")
	f.BoolVar(&o.explain, "explain", false, "tell how each decision was come to")
	return cmd
}

// policyResult is one decision in the JSON output.
type policyResult struct {
	File      string             `json:"file"`
	Line      int                `json:"line"`
	Kind      string             `json:"kind"`
	Namespace string             `json:"namespace,omitempty"`
	Name      string             `json:"name"`
	Decision  gatehouse.Decision `json:"decision"`
	object    policyObject
}

func (o policyTestOptions) checkFormat() error {
	if !slices.Contains(policyFormats, o.format) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "format %q is unknown", o.format).WithHint("use text, json, junit or sarif")
	}
	return nil
}

func (a *app) policyTest(ctx context.Context, o policyTestOptions) error {
	if err := o.checkFormat(); err != nil {
		return err
	}
	var noMatch gatehouse.Verdict
	if err := noMatch.UnmarshalJSON(fmt.Appendf(nil, "%q", o.noMatch)); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--no-match %q is unknown", o.noMatch).WithHint("use deny, warn or allow")
	}
	objects, err := a.policyObjects(o)
	if err != nil {
		return err
	}
	files, unread := load.Read(o.policies...)
	if len(unread) > 0 {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "couldn't read policies: %s", unread[0]).WithHint("name files or directories that exist and may be read")
	}
	loader, err := a.policyLoader(o.trustedRoot)
	if err != nil {
		return err
	}
	set, problems := loader.Load(files, noMatch)
	if err := printProblems(a.stderr, problems); err != nil {
		return err
	}
	sources, done, err := a.policySources(o)
	if err != nil {
		return err
	}
	defer done()
	sources.Timeout = o.timeout
	inventory, err := a.policyInventory(o)
	if err != nil {
		return err
	}
	results := make([]policyResult, len(objects))
	for i, obj := range objects {
		d := decideObject(ctx, set, sources, obj, inventory)
		results[i] = policyResult{obj.file, obj.line, obj.kind.Kind, obj.namespace, obj.name, d, obj}
	}
	if err := a.printResults(o, results); err != nil {
		return err
	}
	return policyAnswer(set, results)
}

func (a *app) policyObjects(o policyTestOptions) ([]policyObject, error) {
	var objects []policyObject
	for _, path := range o.files {
		data, err := a.readInput(path, manifestSizeMax)
		if err != nil {
			return nil, err
		}
		more, err := objectsOf(path, data, o.namespace)
		if err != nil {
			return nil, err
		}
		objects = append(objects, more...)
	}
	if len(objects) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the manifests hold no object").WithHint("name a file with -f")
	}
	return objects, nil
}

// decideObject goes the webhook's way: gather what the policies need, decide.
func decideObject(ctx context.Context, set decide.PolicySet, sources gather.Sources, obj policyObject, inventory *gatehouse.ClusterInventory) gatehouse.Decision {
	req := gatehouse.Request{
		UID: fmt.Sprintf("%s:%d", obj.file, obj.line), Kind: obj.kind, Operation: "CREATE",
		Name: obj.name, Namespace: obj.namespace, Object: obj.json, Now: time.Now().UTC(), Inventory: inventory,
	}
	return decide.Decide(ctx, set, gather.Facts(ctx, set, req, sources))
}

// unknowing are the codes of denials that say "not found out" instead of "no".
var unknowing = []string{
	decide.CodeUnavailable, decide.CodeAccessDenied, decide.CodeCheckFailed, decide.CodeImageUnresolved,
	decide.CodeTimeout, decide.CodeNotChecked, decide.CodeNoJudgement, decide.CodePolicyPanic, decide.CodePoliciesIncomplete,
}

// policyAnswer is the exit code: 1 once something is denied for what it is, 2
// if denials only say that something could not be found out.
func policyAnswer(set decide.PolicySet, results []policyResult) error {
	unknown := !set.Complete
	for _, r := range results {
		if r.Decision.Verdict != gatehouse.Deny {
			continue
		}
		no := slices.ContainsFunc(r.Decision.Reasons, func(why gatehouse.Reason) bool {
			return why.Verdict == gatehouse.Deny && !slices.Contains(unknowing, why.Code)
		})
		if no && set.Complete {
			return answerNo{code: 1}
		}
		unknown = true
	}
	if unknown {
		return answerNo{code: 2}
	}
	return nil
}

// policyOutput opens where the result goes.
func (a *app) policyOutput(o policyTestOptions) (w io.Writer, done func(error) error, err error) {
	if o.output == "" {
		return a.stdout, func(err error) error { return err }, nil
	}
	f, err := os.Create(o.output)
	if err != nil {
		return nil, nil, err
	}
	return f, func(err error) error { return errors.Join(err, f.Close()) }, nil
}

func (a *app) printResults(o policyTestOptions, results []policyResult) (err error) {
	w, done, err := a.policyOutput(o)
	if err != nil {
		return err
	}
	defer func() { err = done(err) }()
	if o.format == "junit" || o.format == "sarif" {
		return writeTrials(w, o.format, trialsOf(results))
	}
	counts := map[gatehouse.Verdict]int{}
	for i, r := range results {
		counts[r.Decision.Verdict]++
		if !o.explain {
			results[i].Decision.Tree = nil
		}
	}
	admitted, denied := counts[gatehouse.Allow]+counts[gatehouse.Warn], counts[gatehouse.Deny]
	if o.format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Decisions []policyResult `json:"decisions"`
			Admitted  int            `json:"admitted"`
			Denied    int            `json:"denied"`
		}{results, admitted, denied})
	}
	for _, r := range results {
		err := printDecision(w, r.object, r.Decision)
		if err == nil && o.explain {
			err = printTree(w, r.Decision)
		}
		if err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "%d admitted, %d denied\n", admitted, denied)
	return err
}

// printDecision writes a decision for people.
func printDecision(w io.Writer, obj policyObject, d gatehouse.Decision) error {
	word := map[gatehouse.Verdict]string{gatehouse.Allow: "admitted", gatehouse.Warn: "warned"}[d.Verdict]
	if word == "" {
		word = "denied"
	}
	if _, err := fmt.Fprintf(w, "%-8s  %s\n", word, obj); err != nil {
		return err
	}
	for _, r := range d.Reasons {
		who := r.Policy
		if who == "" {
			who = "gatehouse"
		}
		image := ""
		if r.Image != "" {
			image = fmt.Sprintf(" image %s (%s):", r.Image, r.Field)
		}
		if _, err := fmt.Fprintf(w, "  %-5s %s:%s %s [%s]\n", r.Verdict, who, image, r.Message, r.Code); err != nil {
			return err
		}
		if r.Hint == "" || r.Verdict == gatehouse.Allow {
			continue
		}
		if _, err := fmt.Fprintf(w, "        hint: %s\n", r.Hint); err != nil {
			return err
		}
	}
	return nil
}
