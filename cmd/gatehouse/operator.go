package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

func (a *app) operatorCmd() *cobra.Command {
	flags := config.Default()
	cmd := &cobra.Command{
		Use:   "operator",
		Short: "keep in a Kubernetes cluster what the webhook needs",
		Long: `Operator keeps in the cluster the custom resource definitions of policies, the
certificate of the webhook and the webhook configurations, which it makes as soon as
the webhook answers. gatehouse serve does the same by itself; as a process of its own
it holds the rights that this takes, and the servers (cluster-manage: false) need them
no more. Of several replicas one acts.`,
		Example: `  gatehouse operator --kubeconfig in-cluster --webhook-service gatehouse/gatehouse-webhook
  gatehouse operator install --print | kubectl apply -f -
  gatehouse operator rotate --kubeconfig ~/.kube/config`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig(cmd, flags)
			if err != nil {
				return err
			}
			if cfg.Kubeconfig == "" {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "no cluster is named").WithHint("set --kubeconfig to a file, or to in-cluster")
			}
			log, flush := server.NewLog(a.stderr, cfg)
			defer flush()
			return server.RunOperator(cmd.Context(), cfg, a.getenv, log)
		},
	}
	bindConfig(cmd, &flags)
	cmd.AddCommand(a.operatorInstallCmd(), a.operatorUninstallCmd(), a.operatorRotateCmd())
	return cmd
}

func (a *app) operatorInstallCmd() *cobra.Command {
	flags, show := config.Default(), false
	cmd := &cobra.Command{
		Use: "install", Short: "make the custom resource definitions of policies", Args: cobra.NoArgs,
		Long: `Install makes the definitions of ClusterImagePolicy, TrustRoot, ImageRule, and of
Gatekeeper's ConstraintTemplate, ExpansionTemplate and SyncSet, in the cluster that
kubectl would take. A definition that another program made, as
policy-controller does, stays as it is and works as well.`,
		Example: `  gatehouse operator install
  gatehouse operator install --print > definitions.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if show {
				b, err := server.DefinitionManifests()
				if err == nil {
					_, err = a.stdout.Write(b)
				}
				return err
			}
			cfg, err := a.loadConfig(cmd, flags)
			if err != nil {
				return err
			}
			left, err := server.InstallDefinitions(cmd.Context(), cfg, a.getenv)
			if err != nil {
				return err
			}
			for _, name := range left {
				fmt.Fprintf(a.stdout, "left as it is: %s, which another program made\n", name)
			}
			_, err = fmt.Fprintln(a.stdout, "ok")
			return err
		},
	}
	bindConfig(cmd, &flags)
	cmd.Flags().BoolVar(&show, "print", false, "print them instead")
	return cmd
}

func (a *app) operatorUninstallCmd() *cobra.Command {
	flags := config.Default()
	cmd := &cobra.Command{
		Use: "uninstall", Short: "take the webhook configurations and the fallback policy away", Args: cobra.NoArgs,
		Long: `Uninstall takes out of the cluster what would deny Pods when no server runs any more.
Stop the servers and the operator first, which would make it again. Policies and their
definitions stay.`,
		Example: `  gatehouse operator uninstall
  gatehouse operator uninstall --kubeconfig ~/.kube/staging`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig(cmd, flags)
			if err == nil {
				err = server.Uninstall(cmd.Context(), cfg, a.getenv)
			}
			if err == nil {
				_, err = fmt.Fprintln(a.stdout, "ok")
			}
			return err
		},
	}
	bindConfig(cmd, &flags)
	return cmd
}

func (a *app) operatorRotateCmd() *cobra.Command {
	flags := config.Default()
	cmd := &cobra.Command{
		Use: "rotate", Short: "ask for a new authority of the webhook's certificate", Args: cobra.NoArgs,
		Long: `Rotate asks whoever keeps the webhook's certificate for a new certificate authority.
It is announced to the API servers first; after webhook-overlap a certificate of it is
served, and the old authority is dropped another webhook-overlap later. No review fails
meanwhile. Without a command this happens in good time before an authority ends.`,
		Example: `  gatehouse operator rotate
  gatehouse operator rotate --kubeconfig ~/.kube/config --cluster-namespace gatehouse`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig(cmd, flags)
			if err == nil {
				err = server.RotateWebhook(cmd.Context(), cfg, a.getenv)
			}
			if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
				return gatehouse.Errorf(gatehouse.CodeNotFound, "%w", err).
					WithHint("set --cluster-namespace; the certificate is made when a server or the operator has webhook-service or webhook-url")
			}
			if err == nil {
				_, err = fmt.Fprintln(a.stdout, "asked")
			}
			return err
		},
	}
	bindConfig(cmd, &flags)
	return cmd
}
