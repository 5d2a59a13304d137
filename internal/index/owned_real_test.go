package index_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestOwnersOfThisSystem asks the real dpkg who owns the metadata of the packages
// of languages on this system, where it is a Debian, and compares.
func TestOwnersOfThisSystem(t *testing.T) {
	dpkg := tool.Need(t, "dpkg")
	const filesMax = 200
	var files []string
	for _, pattern := range []string{
		"/usr/lib/python3/dist-packages/*.egg-info/PKG-INFO", "/usr/lib/python3/dist-packages/*.dist-info/METADATA", "/usr/lib/python3/dist-packages/*.egg-info",
		"/usr/share/nodejs/*/node_modules/*/package.json", "/usr/lib/node_modules/*/package.json", "/usr/share/java/*.jar", "/usr/share/rubygems-integration/*/specifications/*.gemspec",
	} {
		found, _ := filepath.Glob(pattern)
		for _, f := range found {
			if info, err := os.Lstat(f); err == nil && info.Mode().IsRegular() && len(files) < filesMax {
				files = append(files, f)
			}
		}
	}
	lists, _ := filepath.Glob("/var/lib/dpkg/info/*.list")
	if len(files) < 3 || len(lists) == 0 {
		t.Skipf("this system has %d such files and %d lists", len(files), len(lists))
	}
	var entries []entry
	for _, f := range append(append([]string{"/var/lib/dpkg/status"}, lists...), files...) {
		body, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{name: f[1:], body: string(body)})
	}
	_, inv := composeOf(t, entries)
	got := map[string]string{}
	for _, p := range inv.Packages {
		if !p.OS() && p.Owner != "" {
			got["/"+p.Path] = p.Owner
		}
	}
	want := map[string]string{}
	out, _ := exec.Command(dpkg, append([]string{"-S"}, files...)...).Output() // it fails if some are nobody's
	for line := range strings.Lines(string(out)) {
		owner, file, ok := strings.Cut(strings.TrimSpace(line), ": ")
		owner, _, _ = strings.Cut(owner, ":") // architecture
		if ok {
			want[file] = owner
		}
	}
	for file := range want { // of which no package was read, such as a jar without a name
		if _, ok := got[file]; !ok && !hasPackage(inv.Packages, file[1:]) {
			delete(want, file)
		}
	}
	if len(want) == 0 {
		t.Skip("dpkg owns none of them")
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-dpkg +ours:\n%s", d)
	}
}
