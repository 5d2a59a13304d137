package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestSigningCommands types the commands of docs/signing.md, in order.
func TestSigningCommands(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"vex.json":     `{"@context":"https://openvex.dev/ns/v0.2.0","statements":[]}`,
		"bom.cdx.json": `{"bomFormat":"CycloneDX","specVersion":"1.5"}`,
		"allow.rego":   "package signature\n\nallow {\n\tinput.predicateType == \"https://openvex.dev/ns\"\n}\n",
		"allow.cue":    "predicateType: \"https://openvex.dev/ns\"\npredicate: statements!: [...]\n",
	} {
		write(t, filepath.Join(dir, name), []byte(content))
	}
	image := registryWithImages(t, true, 1)[0]
	at, _, _ := strings.Cut(image, "@")
	env := append(os.Environ(), "HOME="+dir, "XDG_CACHE_HOME="+dir+"/cache", "COSIGN_PASSWORD=pw", "IMAGE="+image, "MIRROR="+at+"-mirror:v1",
		"PATH="+binaries(t)+":"+os.Getenv("PATH"))
	commands := 0
	for line := range strings.SplitSeq(blocks(document(t, "signing.md"), "console")[0], "\n") {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		commands++
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", command)
		cmd.Dir, cmd.Env = dir, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("$ %s\n%s\n%v", command, out, err)
		}
	}
	if commands < 15 {
		t.Errorf("only %d commands", commands)
	}
}

// TestSigningFlagsExist: docs/signing.md and docs/signatures.md name no flag that
// there is not, but those of cosign that they say are not here.
func TestSigningFlagsExist(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
	known := map[string]bool{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(a.rootCmd())
	for _, name := range []string{"signing.md", "signatures.md"} {
		for _, m := range regexp.MustCompile("--([a-z][a-z0-9-]+)").FindAllStringSubmatch(document(t, name), -1) {
			if !known[m[1]] {
				t.Errorf("docs/%s names --%s, which there is not", name, m[1])
			}
		}
	}
}

// TestCosignFlagsAreKnown: every flag of stock cosign's commands that we have is
// accepted, or refused with what replaces it. None is unknown.
func TestCosignFlagsAreKnown(t *testing.T) {
	for _, program := range []string{"cosign", "cosign2"} {
		t.Run(program, func(t *testing.T) { knowsFlagsOf(t, program) })
	}
}

func knowsFlagsOf(t *testing.T, program string) {
	co := newCosign(t)
	co.path = tool.Need(t, program)
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
	root := a.rootCmd()
	flag := regexp.MustCompile(`(?m)^ +(?:-([a-zA-Z]), )?--([a-z0-9-]+)`)
	// -d is cosign's --verbose; ours is -v, on every command.
	global := []string{"verbose", "help"}
	total := 0
	for _, command := range []string{"sign", "verify", "attest", "verify-attestation", "tree", "copy", "attach sbom", "attach attestation", "attach signature",
		"download sbom", "download signature", "download attestation", "triangulate", "initialize"} {
		path := strings.Fields(command)
		if err := co.run(append(slices.Clone(path), "--help")...); err != nil {
			t.Fatalf("cosign %s --help: %v\n%s", command, err, co.output)
		}
		cmd, _, err := root.Find(path)
		if err != nil {
			t.Errorf("gatehouse %s: %v", command, err)
			continue
		}
		for _, m := range flag.FindAllStringSubmatch(co.output, -1) {
			total++
			if slices.Contains(global, m[2]) {
				continue
			}
			f := cmd.Flags().Lookup(m[2])
			if f == nil {
				t.Errorf("gatehouse %s does not know --%s", command, m[2])
			} else if m[1] != "" && f.Shorthand != m[1] {
				t.Errorf("gatehouse %s --%s has the letter %q, cosign's is %q", command, m[2], f.Shorthand, m[1])
			}
		}
	}
	if total < 150 {
		t.Errorf("cosign's help lists only %d flags", total)
	}
}

// TestCosignCommandsAreKnown: every command of stock cosign is here, or says what
// takes its place.
func TestCosignCommandsAreKnown(t *testing.T) {
	co, c := newCosign(t), newConsole(t)
	if err := co.run("--help"); err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(co.output, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\nFlags:")
	commands := 0
	for line := range strings.Lines(list) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(name, "-") || slices.Contains([]string{"help", "bundle", "debug"}, name) {
			continue // bundle is another thing here
		}
		commands++
		if code := c.run(name, "--help"); code != 0 && !strings.Contains(c.stderr, "of cosign is not here") {
			t.Errorf("%s: %s", name, c.stderr)
		}
	}
	if commands < 20 {
		t.Errorf("cosign lists only %d commands:\n%s", commands, co.output)
	}
}
