package main

import (
	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse/internal/quickstart"
)

func (a *app) quickstartCmd() *cobra.Command {
	o := quickstart.Options{Out: a.stdout, Log: a.stderr, Getenv: a.getenv}
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "see the whole story on this machine, without any network",
		Long: `Quickstart starts a server in a fresh directory and tells a story with it: push,
scan, sign, admit, deny, and what happens when a new vulnerability is published.
Every verdict on the screen is an HTTP answer of the running server. Then the
server stays up for you to try; --once ends it after the story.`,
		Example: `  gatehouse quickstart
  gatehouse quickstart --once`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ok, err := quickstart.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if !ok {
				return answerNo{code: 1, message: "the story did not come out as told; see the lines marked NOT AS TOLD"}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&o.Once, "once", false, "end after the story: exit 0 if every step came out as told, else 1")
	cmd.Flags().StringVar(&o.Data, "data", "", "directory of the server (default: a new temporary one)")
	return cmd
}
