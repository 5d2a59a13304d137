package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// version is set by the linker; a plain `go install` has the module's version.
var version = ""

// app is what commands stand on, so that tests can run them in-process.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	quiet, verbose bool // -q, -v
	running        bool // past the flags and arguments

	configFile  string      // --config
	file        config.File // that it or the current directory has
	fromFile    bool        // a flag of this command was set by the file
	foundServer bool        // --server was set by a file that nobody named
}

// answerNo ends a command whose answer is no. It is no failure: nothing is
// printed as an error but message, if there is one.
type answerNo struct {
	code    int // 1 unless --exit-code says otherwise
	message string
}

func (a answerNo) Error() string { return a.message }

func (a *app) rootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "gatehouse",
		Short: "decide which container images a cluster may run, and prove why",
		Long: `Gatehouse is a trusted registry, a scanner, a signer and verifier, and the
Kubernetes admission webhook that enforces all of it, in one program.

Start with: gatehouse quickstart`,
		Example: `  gatehouse quickstart
  gatehouse scan alpine:3.20
  gatehouse serve`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       a.version(),
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.environment(cmd); err != nil {
				return err
			}
			if a.quiet && a.verbose {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--quiet and --verbose exclude each other").WithHint("leave one out")
			}
			return nil
		},
	}
	root.SetVersionTemplate("gatehouse {{.Version}}\n")
	root.PersistentFlags().StringVar(&a.configFile, "config", "", "configuration file (default: "+config.DefaultFile+" if it exists)")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "print the result only")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "show each request and step on standard error")
	for _, g := range []struct {
		title string
		cmds  []*cobra.Command
	}{
		{"Start:", []*cobra.Command{a.quickstartCmd(), a.serveCmd()}},
		{"Scan:", []*cobra.Command{a.scanCmd(), a.registryScanCmd(), a.rootfsCmd(), a.fsCmd(), a.sbomCmd(), a.dbCmd(), a.malwareCmd()}},
		{"Sign and verify:", []*cobra.Command{
			a.generateKeyPairCmd(), a.importKeyPairCmd(), a.publicKeyCmd(), a.signCmd(), a.verifyCmd(), a.attestCmd(), a.verifyAttestationCmd(),
			a.treeCmd(), a.copyCmd(), a.attachCmd(), a.downloadCmd(), a.triangulateCmd(), a.initializeCmd(), a.sigstoreCmd(),
		}},
		{"Decide:", []*cobra.Command{a.policyCmd(), a.explainCmd(), a.exceptionCmd(), a.breakGlassCmd(), a.promoteCmd(), a.admissionCmd(), a.operatorCmd()}},
		{"On nodes:", []*cobra.Command{a.imageVerifierCmd(), a.credentialProviderCmd()}},
		{"Look after what is stored:", []*cobra.Command{a.projectCmd(), a.tagCmd(), a.gcCmd(), a.fsckCmd()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range g.cmds {
			c.GroupID = g.title
			root.AddCommand(c)
		}
	}
	root.AddCommand(a.configCmd(), a.versionCmd())
	root.AddCommand(a.cosignOnlyCmds()...)
	group(root)
	root.SetFlagErrorFunc(unknownFlag)
	a.addHelp(root)
	a.noteRunning(root)
	return root
}

// noteRunning lets errors know whether the command line was understood.
func (a *app) noteRunning(cmd *cobra.Command) {
	if inner := cmd.RunE; inner != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.running = true
			return inner(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		a.noteRunning(c)
	}
}

func (a *app) version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Example: `  gatehouse version
  gatehouse --version`,
		Annotations: map[string]string{ownEnvironment: "none"},
		Args:        cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.stdout, "gatehouse", a.version())
			return err
		},
	}
}
