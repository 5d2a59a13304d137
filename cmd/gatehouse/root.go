package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker; a plain `go install` has the module's version.
var version = ""

// app is what commands stand on, so that tests can run them in-process.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
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
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       a.version(),
	}
	root.SetVersionTemplate("gatehouse {{.Version}}\n")
	root.AddCommand(
		a.quickstartCmd(), a.serveCmd(),
		a.scanCmd(), a.registryScanCmd(), a.rootfsCmd(), a.dbCmd(),
		a.generateKeyPairCmd(), a.importKeyPairCmd(), a.signCmd(), a.verifyCmd(),
		a.policyCmd(), a.explainCmd(), a.configCmd(), a.versionCmd(),
	)
	return root
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
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.stdout, "gatehouse", a.version())
			return err
		},
	}
}
