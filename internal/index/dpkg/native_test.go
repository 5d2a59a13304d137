package dpkg_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/index/dpkg"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestParseAsDpkg writes a status file in ways that dpkg forgives: whatever it
// says is installed we find, or we say that the file could not be read.
func TestParseAsDpkg(t *testing.T) {
	query := tool.Need(t, "dpkg-query")
	pkg := func(name, status, version, more string) string {
		return "Package" + name + "\nStatus" + status + "\nPriority: optional\nSection: x\nMaintainer: x <x@example.com>\nArchitecture: all\nVersion" +
			version + "\nDescription: x\n" + more + "\n"
	}
	tests := map[string]string{
		"usual":                     pkg(": a", ": install ok installed", ": 1", ""),
		"blanks before the colon":   pkg(" : a", "\t: install ok installed", "  : 1", ""),
		"no blank behind the colon": pkg(":a", ":install ok installed", ":1", ""),
		"words in capitals":         pkg(": a", ": Install OK Installed", ": 1", ""),
		"many blanks":               pkg(": a", ":  hold \t ok   unpacked", ": 1", ""),
		"name in capitals":          pkg(": OpenSSL", ": install ok installed", ": 1", ""),
		"fields in capitals":        strings.ToUpper(pkg(": a", ": install ok installed", ": 1", "")),
		"value on the next line":    pkg(":\n a", ": install ok installed", ": 1", ""),
		"status on the next line":   pkg(": a", ":\n install ok installed", ": 1", ""),
		"status twice":              pkg(": a", ": install ok installed", ": 1", "Status: deinstall ok config-files\n"),
		"four words":                pkg(": a", ": install ok installed now", ": 1", ""),
		"unknown word":              pkg(": a", ": install ok there", ": 1", ""),
		"old word":                  pkg(": a", ": install ok postinst-failed", ": 1", ""),
		"blank line with a blank":   strings.Replace(pkg(": a", ": install ok installed", ": 1", ""), "\nArch", "\n \nArch", 1),
		"only configuration":        pkg(": a", ": deinstall ok config-files", ": 1", "Config-Version: 1\n"),
		"end of line of DOS":        strings.ReplaceAll(pkg(": a", ": install ok installed", ": 1", ""), "\n", "\r\n"),
		"no end of line":            strings.TrimRight(pkg(": a", ": install ok installed", ": 1", ""), "\n"),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "status"), []byte(in), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(query, "--admindir="+dir, "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n")
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			out, err := cmd.Output()
			if err != nil {
				out = nil // dpkg refuses the file
			}
			got, parseErr := dpkg.Parse(strings.NewReader(in), false, 100)
			var have []string
			for _, p := range got {
				have = append(have, p.Name+" "+p.Version)
			}
			for line := range strings.Lines(string(out)) {
				f := strings.Fields(line)
				if f[len(f)-1] == "config-files" || parseErr != nil {
					continue
				}
				if want := fmt.Sprint(f[0], " ", f[1]); !slices.Contains(have, want) {
					t.Errorf("dpkg has %q, we have %q", want, have)
				}
			}
		})
	}
}
