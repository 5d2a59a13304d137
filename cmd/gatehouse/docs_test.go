package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// blocks returns the fenced blocks of a document in one language.
func blocks(text, language string) []string {
	var out []string
	for _, part := range strings.Split(text, "```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		out = append(out, block)
	}
	return out
}

// TestScannerCommands types the commands of docs/scanner.md.
func TestScannerCommands(t *testing.T) {
	dir := t.TempDir()
	readmeFiles(t, dir)
	write(t, filepath.Join(dir, "rootfs", "etc", "os-release"), []byte("ID=debian\nVERSION_ID=12\n"))
	write(t, filepath.Join(dir, "rootfs", "var", "lib", "dpkg", "status"), []byte("Package: a\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\n\n"))
	env := append(os.Environ(), "HOME="+dir, "XDG_CACHE_HOME="+dir+"/cache", "PATH="+binaries(t)+":"+os.Getenv("PATH"))
	commands := 0
	for line := range strings.SplitSeq(blocks(document(t, "scanner.md"), "console")[0], "\n") {
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
	if commands < 10 {
		t.Fatalf("only %d commands", commands)
	}
}

// binaries is a folder with this test binary as gatehouse.
func binaries(t *testing.T) string {
	t.Helper()
	exe, err := exec.LookPath("gatehouse") // testscript.Main puts it there
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(exe)
}

// TestScannerFlagsAreDocumented: docs/scanner.md names every flag of a scan and
// none that there is not.
func TestScannerFlagsAreDocumented(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
	text := document(t, "scanner.md")
	known := map[string]bool{}
	for _, c := range []*cobra.Command{a.scanCmd(), a.registryScanCmd(), a.rootfsCmd(), a.fsCmd(), a.sbomCmd()} {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			known[f.Name] = true
			if !f.Hidden && f.Name != "help" && !strings.Contains(text, "`--"+f.Name+"`") {
				t.Errorf("docs/scanner.md does not have --%s of %s", f.Name, c.Name())
			}
		})
	}
	_, table, _ := strings.Cut(text, "## Flags\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, m := range regexp.MustCompile("`--([a-z-]+)`").FindAllStringSubmatch(table, -1) {
		if !known[m[1]] {
			t.Errorf("docs/scanner.md has a flag --%s, which there is not", m[1])
		}
	}
}

// TestPipelines: the pipelines of docs/ci.md are YAML, and every command of ours in
// them has flags and arguments that are understood.
func TestPipelines(t *testing.T) {
	commands := 0
	for _, block := range blocks(document(t, "ci.md"), "yaml") {
		var doc any
		if err := yaml.Unmarshal([]byte(block), &doc); err != nil {
			t.Errorf("%v in\n%s", err, block)
		}
		for _, m := range regexp.MustCompile(`(?m)^ *- (?:run: )?gatehouse (.*?)(?: #.*)?$`).FindAllStringSubmatch(block, -1) {
			commands++
			args := strings.Fields(regexp.MustCompile(`\$\{\{[^}]*\}\}|\$[A-Z_]+`).ReplaceAllString(m[1], "x"))
			a := &app{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
			cmd, rest, err := a.rootCmd().Find(args)
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("gatehouse %s: %v", m[1], err)
			}
		}
	}
	if commands < 10 {
		t.Errorf("only %d commands", commands)
	}
}
