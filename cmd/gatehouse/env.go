package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// ownEnvironment marks a command that reads its settings itself ("config") or
// that neither a variable nor a file may change ("none").
const ownEnvironment = "environment"

// environment sets the flags that were not typed from GATEHOUSE_* variables
// and, below them, from the configuration file.
func (a *app) environment(cmd *cobra.Command) error {
	own := cmd.Annotations[ownEnvironment]
	if own == "none" || strings.HasPrefix(cmd.Name(), "__") || cmd.Name() == "help" || cmd.HasParent() && cmd.Parent().Name() == "completion" {
		return nil
	}
	path := a.configFile
	if path == "" {
		path = a.getenv(config.EnvName("config"))
	}
	known := flagNames(cmd.Root())
	err := a.mistyped(os.Environ(), known)
	if err != nil {
		return err
	}
	if a.file, err = config.ReadFile(path, known); err != nil {
		return err
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		// GATEHOUSE_INSECURE is about how a server listens. On a machine that
		// runs one it must not turn off the check of other registries' TLS.
		if err != nil || f.Changed || slices.Contains([]string{"help", "version", "config", "insecure"}, f.Name) ||
			own == "config" && (slices.Contains(config.Keys(), f.Name) || f.Name == "server") {
			// GATEHOUSE_SERVER is whom clients ask. Whom gatehouse admission believes is
			// said by a setting of its own, facts-server.
			return
		}
		err = a.setFlag(cmd, f, path == "")
	})
	if err == nil && own != "config" && a.file.Path != "" && len(a.file.Entries) > 0 && path == "" && a.fromFile {
		a.say("settings from ./%s", a.file.Path)
	}
	return err
}

// personal are flags that a file which merely lies in the current directory must
// not set: it may have come with somebody's sources, and would say where identity
// tokens are sent, whom to trust or what to overlook.
var personal = []string{
	"identity-token", "fulcio-url", "rekor-url", "timestamp-server-url", "signing-config", "mirror", "root", "root-checksum",
	"trusted-root", "ca-roots", "ca-intermediates", "certificate-chain", "cert-chain", "timestamp-certificate-chain", "registry-cacert",
	"insecure-ignore-tlog", "private-infrastructure", "insecure-ignore-sct", "any-attestation",
	"allow-insecure-registry", "allow-http-registry", "yes",
}

// otherVariables are read beside the settings and flags.
var otherVariables = []string{"config", "username", "username-file", "password", "password-file", "admin-password", "admin-password-file"}

// mistyped finds a variable whose name is nearly that of a setting: unlike a key
// of the file, an unknown one may be somebody else's, as Kubernetes sets
// GATEHOUSE_PORT where a service has that name.
func (a *app) mistyped(environ, flags []string) error {
	known := slices.Concat(config.Keys(), flags, otherVariables)
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, config.EnvPrefix)
		key := strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
		if !ours || slices.Contains(known, key) || a.getenv(name) == "" {
			continue
		}
		if near := config.Similar(key, known); near != "" {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "unknown variable %s", name).WithHint("did you mean %s? If not, give it another name", config.EnvName(near))
		}
	}
	return nil
}

// setFlag gives f the value of its variable or of its key in the file. found
// says that the file was not named but lies in the current directory.
func (a *app) setFlag(cmd *cobra.Command, f *pflag.Flag, found bool) error {
	name := config.EnvName(f.Name)
	if value := a.getenv(name); value != "" {
		values := []string{value}
		if f.Value.Type() == "stringArray" {
			values = strings.Split(value, ",")
		}
		return setFlag(cmd, f, fmt.Sprintf("%s=%q", name, value), values)
	}
	at := slices.IndexFunc(a.file.Entries, func(e config.Entry) bool { return e.Key == f.Name })
	if at < 0 {
		return nil
	}
	e := a.file.Entries[at]
	where := fmt.Sprintf("%s:%d: %s: %q", a.file.Path, e.Line, e.Key, strings.Join(e.Values, ","))
	if e.List && !slices.Contains([]string{"stringArray", "stringSlice"}, f.Value.Type()) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s is a list; --%s takes one value", where, f.Name)
	}
	if found && slices.Contains(personal, f.Name) {
		return gatehouse.Errorf(gatehouse.CodeDenied, "%s: a file that merely lies in the current directory does not set it", where).
			WithHint("give --%s, set %s, or name the file with --config", f.Name, name)
	}
	a.fromFile = true
	a.foundServer = a.foundServer || f.Name == "server" && found
	return setFlag(cmd, f, where, e.Values)
}

func setFlag(cmd *cobra.Command, f *pflag.Flag, where string, values []string) error {
	for _, v := range values {
		if err := cmd.Flags().Set(f.Name, v); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s is no value of --%s", where, f.Name).
				WithHint("take it out, or see `%s --help`", cmd.CommandPath())
		}
	}
	return nil
}

// flagNames are the flags of all commands: the file is one for all of them.
func flagNames(cmd *cobra.Command) []string {
	var names []string
	add := func(f *pflag.Flag) {
		if !slices.Contains([]string{"help", "version", "config"}, f.Name) {
			names = append(names, f.Name)
		}
	}
	cmd.Flags().VisitAll(add)
	cmd.PersistentFlags().VisitAll(add)
	for _, c := range cmd.Commands() {
		if !c.IsAdditionalHelpTopicCommand() && c.Annotations[ownEnvironment] != "none" {
			names = append(names, flagNames(c)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
