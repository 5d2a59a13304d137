package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// ownEnvironment marks a command that reads its settings itself ("config") or
// that no variable may change ("none").
const ownEnvironment = "environment"

// environment sets the flags that were not typed from GATEHOUSE_* variables.
func (a *app) environment(cmd *cobra.Command) (err error) {
	own := cmd.Annotations[ownEnvironment]
	if own == "none" {
		return nil
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		// GATEHOUSE_INSECURE is about how a server listens. On a machine that
		// runs one it must not turn off the check of other registries' TLS.
		if err != nil || f.Changed || f.Name == "help" || f.Name == "version" || f.Name == "insecure" ||
			own == "config" && slices.Contains(config.Keys(), f.Name) {
			return
		}
		name := config.EnvName(f.Name)
		value := a.getenv(name)
		if value == "" {
			return
		}
		values := []string{value}
		if f.Value.Type() == "stringArray" {
			values = strings.Split(value, ",")
		}
		for _, v := range values {
			if wrong := cmd.Flags().Set(f.Name, v); wrong != nil && err == nil {
				err = gatehouse.Errorf(gatehouse.CodeInvalid, "%s=%q is no value of --%s", name, value, f.Name).
					WithHint("unset it, or see `%s --help`", cmd.CommandPath())
			}
		}
	})
	return err
}
