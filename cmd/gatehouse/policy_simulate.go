package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
)

func (a *app) policySimulateCmd() *cobra.Command {
	var q asking
	var since string
	var without []string
	var exitCode int
	cmd := q.bind(&cobra.Command{
		Use:   "simulate [PATH...]",
		Short: "judge what a server has reviewed by other policies, and show what would change",
		Long: `Has a server judge the reviews of the last days again: by the policies in force, and
by those with the given files put in. A document takes the place of the one in force
of the same kind and name, a module of the one of the same package; others come
besides. Nothing is changed. Images are what their tags meant at the time of the
review; what is known of them (signatures, findings) is of now.

Exits 0 if nothing would be denied that is admitted now, 1 if something would, 2 if
that could not be found out. A server keeps reviews as long as admission-record says.`,
		Example: `  gatehouse policy simulate --since 7d new-policy.yaml
  gatehouse policy simulate --since 12h --server https://registry.example policies/
  gatehouse policy simulate --without old-policy --format json`,
		RunE: func(cmd *cobra.Command, paths []string) error {
			ask := simulationAsked{Without: without}
			if len(paths)+len(without) == 0 {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "no policy is given").WithHint("name files of policies, or with --without policies that would be gone")
			}
			age, err := ageOf(since)
			if err != nil {
				return err
			}
			ask.Since = age.String()
			if len(paths) > 0 {
				files, unread := load.Read(paths...)
				if len(unread) > 0 {
					return gatehouse.Errorf(gatehouse.CodeNotFound, "couldn't read policies: %s", unread[0]).WithHint("name files or directories that exist and may be read")
				}
				for _, f := range files {
					ask.Documents = append(ask.Documents, documentAsked{f.Path, string(f.Data)})
				}
			}
			return a.policySimulate(cmd.Context(), q, ask, exitCode)
		},
	})
	f := cmd.Flags()
	f.StringVar(&since, "since", "7d", "how long ago the reviews may have happened: 7d, 12h")
	f.StringArrayVar(&without, "without", nil, "name of a policy that would be gone (repeatable)")
	f.IntVar(&exitCode, "exit-code", 1, "exit code if something would be denied that is admitted now")
	return cmd
}

// ageOf reads "7d" or "12h".
func ageOf(s string) (time.Duration, error) {
	const daysMax = 366
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= daysMax {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	return 0, gatehouse.Errorf(gatehouse.CodeInvalid, "--since %q is not how long ago", s).WithHint("write 7d or 12h")
}

type documentAsked struct {
	Name   string `json:"name"`
	Source string `json:"source"`
}

type simulationAsked struct {
	Since     string          `json:"since"`
	Documents []documentAsked `json:"documents,omitempty"`
	Without   []string        `json:"without,omitempty"`
}

// simulationInfo is the server's answer.
type simulationInfo struct {
	Since        time.Time         `json:"since"`
	Reviews      int64             `json:"reviews"`
	Distinct     int               `json:"distinct"`
	Truncated    bool              `json:"truncated"`
	NewlyDenied  int               `json:"newlyDenied"`
	NewlyWarned  int               `json:"newlyWarned"`
	NewlyAllowed int               `json:"newlyAllowed"`
	Unchanged    int               `json:"unchanged"`
	Unknown      int               `json:"unknown"`
	Changes      []simulatedChange `json:"changes"`
	Warnings     []struct {
		Line    int    `json:"line,omitempty"`
		Field   string `json:"field,omitempty"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	} `json:"warnings"`
}

type simulatedChange struct {
	Kind      string             `json:"kind"`
	Namespace string             `json:"namespace,omitempty"`
	Name      string             `json:"name,omitempty"`
	User      string             `json:"user,omitempty"`
	Images    []string           `json:"images"`
	Times     int64              `json:"times"`
	Last      time.Time          `json:"last"`
	Decision  string             `json:"decision"`
	Recorded  gatehouse.Verdict  `json:"recorded"`
	Now       gatehouse.Verdict  `json:"now"`
	Then      gatehouse.Verdict  `json:"then"`
	Reasons   []gatehouse.Reason `json:"reasons"`
	Masked    bool               `json:"masked,omitempty"`
}

func (a *app) policySimulate(ctx context.Context, q asking, ask simulationAsked, exitCode int) error {
	c, err := a.asker(q)
	if err != nil {
		return err
	}
	var out simulationInfo
	if err := c.post(ctx, "/api/v1/policies/simulate", ask, &out); err != nil {
		return err
	}
	for _, w := range out.Warnings {
		fmt.Fprintf(a.stderr, "warning: %s\n", plain(w.Message))
	}
	if out.Reviews == 0 {
		a.say("the server has kept no review since %s; admission-record says how long it keeps them", out.Since.UTC().Format(time.RFC3339))
	}
	if out.Truncated {
		a.say("there were more reviews, longer ago: give a shorter --since to look at all of it")
	}
	err = a.show(q, out, func() error { return printSimulation(a, out) })
	if err == nil && out.NewlyDenied > 0 {
		return answerNo{code: exitCode}
	}
	return err
}

// printSimulation writes what would change, and the sums.
func printSimulation(a *app, out simulationInfo) error {
	for _, c := range out.Changes {
		where := strings.Trim(c.Namespace+"/"+c.Name, "/")
		if c.Name == "" {
			where = c.Namespace
		}
		fmt.Fprintf(a.stdout, "%s -> %s  %s %s  %d times, last %s, decision %s\n", c.Now, c.Then, plain(c.Kind), plain(where), c.Times, c.Last.UTC().Format(time.RFC3339), c.Decision)
		for _, image := range c.Images {
			fmt.Fprintf(a.stdout, "  image %s\n", plain(image))
		}
		for _, r := range c.Reasons {
			fmt.Fprintf(a.stdout, "  %-5s %s: %s [%s]\n", r.Verdict, r.Policy, plain(r.Message), r.Code)
		}
		if c.Masked {
			fmt.Fprintln(a.stdout, "  secret values of the object are not kept: a rule about them judged (not kept)")
		}
	}
	if more := out.NewlyDenied + out.NewlyWarned + out.NewlyAllowed - len(out.Changes); more > 0 {
		fmt.Fprintf(a.stdout, "and %d more\n", more)
	}
	_, err := fmt.Fprintf(a.stdout, "%d reviews, %d of them distinct: %d newly denied, %d newly warned, %d newly allowed, %d unchanged; of %d something could not be found out now\n",
		out.Reviews, out.Distinct, out.NewlyDenied, out.NewlyWarned, out.NewlyAllowed, out.Unchanged, out.Unknown)
	return err
}
