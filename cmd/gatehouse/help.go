package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// group makes cmd a command that only holds others: without an argument it
// shows them, with one that is none of them it fails.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(cmd, args[0])
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.SuggestionsMinimumDistance = 2
	return cmd
}

// suggestMin is the length of a word from which a similar one is worth naming.
const suggestMin = 3

func unknownCommand(cmd *cobra.Command, word string) error {
	e := gatehouse.Errorf(gatehouse.CodeInvalid, "unknown command %q", word)
	if hint, ok := trivyCommands[word]; ok && !cmd.HasParent() {
		return e.WithHint("%s", hint)
	}
	if near := cmd.SuggestionsFor(word); len(word) >= suggestMin && len(near) > 0 {
		return e.WithHint("did you mean `%s %s`?", cmd.CommandPath(), near[0])
	}
	return e.WithHint("`%s --help` lists the commands", cmd.CommandPath())
}

// unknownFlag names the flag that was probably meant.
func unknownFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	if hint, ok := trivyInstead[unknown.GetSpecifiedName()]; ok && cmd.Flags().Lookup("scanners") != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%w", err).WithHint("%s", hint)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := config.Similar(unknown.GetSpecifiedName(), names); near != "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%w", err).WithHint("did you mean --%s?", near)
	}
	return err
}

// noArgs is cobra.NoArgs with a hint to where the argument may belong.
func noArgs(where string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return gatehouse.Errorf(gatehouse.CodeInvalid, "argument %q is one too many", args[0]).WithHint("%s", where)
	}
}

// The usage of a group shows its commands, not that it runs alone.
func usageTemplate(cobras string) string {
	return strings.Replace(cobras, "{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1)
}

// addHelp adds `help`, the topics and `completion`.
func (a *app) addHelp(root *cobra.Command) {
	root.SetUsageTemplate(usageTemplate(root.UsageTemplate()))
	list := &strings.Builder{}
	list.WriteString("Help on more than one command:\n\n")
	for _, t := range topics {
		fmt.Fprintf(list, "  gatehouse help %-12s %s\n", t.name, t.short)
		root.AddCommand(&cobra.Command{Use: t.name, Short: t.short, Long: t.long})
	}
	list.WriteString("\nEvery command has --help.")
	root.AddCommand(&cobra.Command{Use: "topics", Short: "the list of these topics", Long: list.String()})
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND or TOPIC]",
		Short: "help on a command or a topic; `gatehouse help topics` lists the topics",
		Example: `  gatehouse help scan
  gatehouse help policy test
  gatehouse help topics`,
		ValidArgsFunction: completeCommands,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == root && len(args) > 0 || len(rest) > 0 && cmd.HasSubCommands() {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "there is neither a command nor a topic %q", strings.Join(args, " ")).
					WithHint("`gatehouse --help` lists the commands, `gatehouse help topics` the topics")
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	})
	root.InitDefaultHelpCmd()
	root.SetOut(a.stdout)                       // which the completion commands take as it is now
	root.InitDefaultCompletionCmd("completion") // cobra adds it only where somebody asks
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Short = "print a completion script for bash, zsh, fish or powershell"
			c.Long = "Completion prints a script that teaches a shell to complete commands and flags."
			c.Example = "  source <(gatehouse completion bash)\n  gatehouse completion zsh > \"${fpath[1]}/_gatehouse\""
			group(c)
			for _, shell := range c.Commands() {
				shell.Short = "print the completion script for " + shell.Name()
			}
		}
	}
}

func completeCommands(cmd *cobra.Command, args []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
	at, _, err := cmd.Root().Find(args)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []cobra.Completion
	for _, c := range at.Commands() {
		if (c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand()) && strings.HasPrefix(c.Name(), start) {
			words = append(words, cobra.CompletionWithDesc(c.Name(), c.Short))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

var topics = []struct{ name, short, long string }{
	{"exit-codes", "what 0, 1 and 2 mean", `Exit codes are the same for every command:

  0  yes, or done
  1  the answer is no: something is listed (scan --exit-code), not verified, denied
  2  it could not be decided or done: usage, network, files, an incomplete scan

scan --exit-code N answers N instead of 1. A gated scan (--exit-code) of an image
that could not be looked at whole, or that no loaded advisories cover, exits 2
and prints "incomplete" on standard error: it proves nothing.

Errors are two lines on standard error: "error: what: why" and "hint: what to do".`},
	{"references", "how image names are read", `Image references are read as Docker reads them:

  alpine                          docker.io/library/alpine:latest
  team/app:v1                     docker.io/team/app:v1
  localhost:5000/team/app         registry localhost:5000, tag latest
  registry.example/app@sha256:…   registry.example, this very image

The part before the first slash is a registry if it has a dot, a colon or an upper
case letter, or is localhost. A reference with a digest means those bytes; a tag
means whatever it names now.

gatehouse scan looks first whether Docker, containerd or Podman on this machine has
the image (--image-src says where and in which order), then in its registry;
gatehouse registry asks the registry only. For an image of another machine:

  docker save your-app:latest -o app.tar && gatehouse scan --input app.tar`},
	{"environment", "settings in variables and in gatehouse.yaml", `Every flag can be set by a variable: GATEHOUSE_ and the flag's name in capitals,
with _ for -. Lists are divided by commas. A flag is stronger than a variable. A
variable that looks like one of these mistyped is an error.

  GATEHOUSE_SERVER=https://registry.example gatehouse db status
  GATEHOUSE_SEVERITY=CRITICAL,HIGH gatehouse scan alpine:3.20

Weaker than both is a file: gatehouse.yaml in the current directory, or what
--config names. It has the same keys (server: https://registry.example), and one
file may hold those of several commands; an unknown key is an error. gatehouse config
print shows those of gatehouse serve with their values. A server that a
gatehouse.yaml names which lies in the directory by itself does not get
GATEHOUSE_PASSWORD; --config gatehouse.yaml says that you trust it.

insecure is the exception: only gatehouse serve takes it from a variable or a file,
where it is about listening. gatehouse admission follows the server of --server,
facts-server or GATEHOUSE_FACTS_SERVER, never that of GATEHOUSE_SERVER. gatehouse
quickstart takes nothing.

  GATEHOUSE_ADMIN_PASSWORD   password of the administrator that a first start makes
  GATEHOUSE_USERNAME, GATEHOUSE_PASSWORD   your name at --server
  GATEHOUSE_ADMIN_PASSWORD_FILE, GATEHOUSE_PASSWORD_FILE   files that hold them
  GATEHOUSE_DATABASE_FILE    file that holds the database URL
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN   for s3:// storage
  OTEL_EXPORTER_OTLP_HEADERS   for the trace collector
  COSIGN_PASSWORD            password of cosign.key
  DOCKER_CONFIG, REGISTRY_AUTH_FILE   where logins are kept
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY   proxies
  XDG_CACHE_HOME             the advisory file and the layer cache are below it`},
	{"credentials", "where names and passwords come from", `At registries gatehouse uses the logins that docker login and podman login keep,
credential helpers included; sign and verify also take --registry-username and
--registry-password.

At --server it uses, in this order: the name and password in the URL,
GATEHOUSE_USERNAME and GATEHOUSE_PASSWORD, the logins of docker login.

The first start of gatehouse serve makes the account admin. Its password stands in
the file initial-admin-password of the data directory.`},
}
