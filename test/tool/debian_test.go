package tool

import (
	"os"
	"path/filepath"
	"testing"
)

func TestIsDebian(t *testing.T) {
	tests := []struct {
		text string
		want bool
	}{
		{"PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n", true},
		{"NAME=Ubuntu\nID=ubuntu\nID_LIKE=debian\n", true},
		{"ID=mint\nID_LIKE=\"ubuntu debian\"\n", true},
		{"ID=fedora\nBUG_REPORT=debian\n", false},
		{"ID=notdebian\n", false},
		{"", false},
	}
	path := filepath.Join(t.TempDir(), "os-release")
	for _, tt := range tests {
		if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := isDebian(path); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.text, got, tt.want)
		}
	}
	if isDebian(path + ".none") {
		t.Error("a machine without os-release is taken for Debian")
	}
}

// TestInstallDebianMayNot: the switch keeps a machine as it is, and what is
// missing is told.
func TestInstallDebianMayNot(t *testing.T) {
	t.Setenv("GATEHOUSE_NO_INSTALL", "1")
	t.Setenv("PATH", t.TempDir())
	missing, why := InstallDebian(t.Context(), "test", t.Output())
	if why == nil {
		t.Fatal("nothing is said to be wrong")
	}
	found := false
	for _, p := range missing {
		found = found || p.Program == "skopeo"
	}
	if !found {
		t.Errorf("skopeo is not among the missing: %v", missing)
	}
}
