package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

func (a *app) serveCmd() *cobra.Command {
	flags := config.Default()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run the registry, the API, the scanner and the admission webhook",
		Long: `Serve runs everything in one process. The first start makes an account "admin"
with a random password, which is shown once, on a terminal only, and kept in the
file initial-admin-password of the data directory until it is changed;
GATEHOUSE_ADMIN_PASSWORD, or the file that GATEHOUSE_ADMIN_PASSWORD_FILE names, sets
it instead. An interrupt or SIGTERM lets running requests end, and exits 0; a second
one ends the process at once.

Settings come from flags, from GATEHOUSE_* variables and from gatehouse.yaml, in
that order of strength; docs/config.md explains each. Certificates are read again
when their files change.`,
		Example: `  gatehouse serve
  gatehouse serve --listen :443 --tls-cert tls.crt --tls-key tls.key --hostnames registry.example
  gatehouse serve --listen 127.0.0.1:0 --ready-file ready --data /var/lib/gatehouse`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig(cmd, flags)
			if err != nil {
				return err
			}
			log, flush := server.NewLog(a.stderr, cfg)
			defer flush()
			s, err := server.New(cmd.Context(), cfg, a.getenv, log)
			if err != nil {
				return err
			}
			a.showPassword(cfg, s.AdminPassword)
			return s.Run(cmd.Context())
		},
	}
	bindConfig(cmd, &flags)
	return cmd
}

// bindConfig makes a flag of every setting.
func bindConfig(cmd *cobra.Command, c *config.Config) {
	cmd.Annotations = map[string]string{ownEnvironment: "config"}
	keys, help := config.Keys(), config.Help()
	for i, v := range c.Values() {
		f := cmd.Flags().VarPF(v, keys[i], "", help[i])
		if v.IsBoolFlag() {
			f.NoOptDefVal = "true"
		}
	}
}

// loadConfig lays flags over environment over file over defaults.
func (a *app) loadConfig(cmd *cobra.Command, flags config.Config) (config.Config, error) {
	cfg, err := config.Load(a.file, a.getenv)
	if err != nil {
		return cfg, err
	}
	from, to := reflect.ValueOf(flags), reflect.ValueOf(&cfg).Elem()
	for i, key := range config.Keys() {
		if cmd.Flags().Changed(key) {
			to.Field(i).Set(from.Field(i))
		}
	}
	if !cmd.Flags().Changed("log-level") {
		switch {
		case a.verbose:
			cfg.LogLevel = "debug"
		case a.quiet:
			cfg.LogLevel = "warn"
		}
	}
	return cfg, cfg.Check()
}

// showPassword shows a new administrator's password once, to a terminal only:
// elsewhere it would end up in a log.
func (a *app) showPassword(cfg config.Config, password string) {
	if password == "" {
		return
	}
	file := filepath.Join(cfg.Data, "initial-admin-password")
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(a.stderr, "\nA new account has been made:\n\n  name      admin\n  password  %s\n\nIt is also in %s until you change it.\n\n", password, file)
		return
	}
	fmt.Fprintf(a.stderr, "A new account has been made: admin. Its password is in %s.\n", file)
}

func (a *app) configCmd() *cobra.Command {
	flags := config.Default()
	cmd := group(&cobra.Command{
		Use: "config", Short: "look at the settings of the server",
		Example: `  gatehouse config check --config /etc/gatehouse.yaml
  gatehouse config print > gatehouse.yaml`,
	})
	syntax := false
	check := &cobra.Command{
		Use: "check", Short: "tell whether the settings can work", Args: cobra.NoArgs,
		Long: `Check reads the settings as gatehouse serve does, and the files that they name:
certificates with their keys, policies, the URLs of database and storage. It
contacts nobody.`,
		Example: `  gatehouse config check
  gatehouse config check --config /etc/gatehouse.yaml --syntax-only`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig(cmd, flags)
			if err == nil && !syntax {
				err = checkFiles(cfg, a.getenv)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, "ok")
			return err
		},
	}
	check.Flags().BoolVar(&syntax, "syntax-only", false, "look neither into files nor into URLs that the settings name")
	show := &cobra.Command{
		Use: "print", Short: "print the settings in force, with where they may be set", Args: cobra.NoArgs,
		Example: `  gatehouse config print
  GATEHOUSE_LISTEN=127.0.0.1:5001 gatehouse config print --data /srv/gatehouse > gatehouse.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig(cmd, flags)
			if err != nil {
				return err
			}
			return config.Print(a.stdout, cfg)
		},
	}
	for _, sub := range []*cobra.Command{check, show} {
		bindConfig(sub, &flags)
		cmd.AddCommand(sub)
	}
	return cmd
}

// checkFiles reads the files that settings name, as the server would.
func checkFiles(cfg config.Config, getenv func(string) string) error {
	if err := server.CheckURLs(cfg, getenv); err != nil {
		return err
	}
	if err := server.CheckFeeds(cfg); err != nil {
		return err
	}
	if err := server.CheckScanner(cfg); err != nil {
		return err
	}
	if err := server.CheckCluster(cfg); err != nil {
		return err
	}
	if err := server.CheckElsewhere(cfg); err != nil {
		return err
	}
	for _, pair := range []struct{ key, cert, certKey string }{
		{"tls-cert", cfg.TLSCert, cfg.TLSKey},
		{"admission-tls-cert", cfg.AdmissionTLSCert, cfg.AdmissionTLSKey},
	} {
		if pair.cert == "" {
			continue
		}
		c, err := server.LoadKeyPair(pair.cert, pair.certKey)
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %w", pair.key, err)
		}
		if time.Now().After(c.Leaf.NotAfter) {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: the certificate ended at %s", pair.key, c.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if len(cfg.Policy) == 0 {
		return nil
	}
	files, problems := load.Read(cfg.Policy...)
	_, more := load.Load(files, gatehouse.Deny)
	if errs := decide.Errors(append(problems, more...)); len(errs) > 0 {
		e := gatehouse.Errorf(gatehouse.CodeInvalid, "policy: %s", errs[0])
		e.Hint = errs[0].Hint
		return e
	}
	return nil
}
