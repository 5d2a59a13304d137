package main

import (
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse/internal/quickstart"
)

func (a *app) quickstartCmd() *cobra.Command {
	o := quickstart.Options{Out: a.stdout, Log: a.stderr, Getenv: a.getenv, Program: program()}
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "see the whole story on this machine, without any network",
		Long: `Quickstart starts a server in a fresh directory and tells a story with it: push,
scan, sign, admit, deny, and what happens when a new vulnerability is published.
Every verdict on the screen is an HTTP answer of the running server. Then the
server stays up for you to try; --once ends it after the story.`,
		Example: `  gatehouse quickstart
  gatehouse quickstart --once
  gatehouse quickstart --data ./demo`,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{ownEnvironment: "none"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ok, err := quickstart.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if !ok {
				return answerNo{code: 1, message: "the story did not come out as told; see the lines marked NOT AS EXPECTED"}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&o.Once, "once", false, "end after the story: exit 0 if every step came out as it should, else 1")
	cmd.Flags().StringVar(&o.Data, "data", "", "directory of the server (default: a new temporary one)")
	return cmd
}

// program is what a person types to run this program again: its name where the
// shell finds it, else its path.
func program() string {
	self, err := os.Executable()
	if err != nil {
		return "gatehouse"
	}
	if found, err := exec.LookPath("gatehouse"); err == nil && sameFile(found, self) {
		return "gatehouse"
	}
	return self
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
