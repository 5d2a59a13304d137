package main

import (
	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

func (a *app) admissionCmd() *cobra.Command {
	flags, from := config.Default(), ""
	cmd := &cobra.Command{
		Use:   "admission",
		Short: "run the admission webhook as a process of its own",
		Long: `Admission answers the webhooks and does nothing else. In another cluster than the
server's it follows that server (--server): what the server says of its images is
signed, compared with --facts-key and kept on the own disk, signatures of images are
verified here, policies are this cluster's own, and decisions go on for
--admission-max-stale while the server is away. docs/elsewhere.md tells all of it.

Without --server it works on the database (PostgreSQL) and the storage (S3) of
gatehouse serve, as one more replica that has the webhook and nothing else. Settings are
those of gatehouse serve; --server is another word for facts-server
(GATEHOUSE_FACTS_SERVER). GATEHOUSE_SERVER, which names the server of client commands,
does not count here. The first line of the log says which server is followed.`,
		Example: `  gatehouse admission --server https://registry.example.com --facts-key facts.pub --registry-login-file login.json --policy policies
  gatehouse admission --server https://registry.example.com --facts-key facts.pub --kubeconfig in-cluster
  gatehouse admission --config /etc/gatehouse.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from != "" { // another word for the setting, as other commands have it
				if err := cmd.Flags().Set("facts-server", from); err != nil {
					return err
				}
			}
			cfg, err := a.loadConfig(cmd, flags)
			if err != nil {
				return err
			}
			log, flush := server.NewLog(a.stderr, cfg)
			defer flush()
			s, err := server.NewAdmission(cmd.Context(), cfg, a.getenv, log)
			if err != nil {
				return err
			}
			a.showPassword(cfg, s.AdminPassword)
			return s.Run(cmd.Context())
		},
	}
	bindConfig(cmd, &flags)
	cmd.Flags().StringVar(&from, "server", "", "the server to follow (URL), as --facts-server; GATEHOUSE_SERVER does not set it")
	return cmd
}
