package tool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Debian is one Debian package that a stage uses.
type Debian struct {
	Name    string   // of the package
	Program string   // that it brings; what messages and skipped tests call it
	File    string   // that proves it, as a pattern, where no program in PATH does
	Why     string   // for whoever has to install it by hand
	Stages  []string // who needs it
}

// DebianFor lists what a stage needs from Debian.
func DebianFor(stage string) []Debian {
	all := []Debian{
		{"ca-certificates", "ca-certificates", "/etc/ssl/certs/ca-certificates.crt", "to reach the Go module proxy", []string{"test", "e2e", "bench"}},
		{"gcc", "gcc", "", "for the race detector", []string{"test"}},
		{"libc6-dev", "libc6-dev", "/usr/include/stdlib.h", "for the race detector", []string{"test"}},
		{"skopeo", "skopeo", "", "a client of the registry", []string{"test", "e2e"}},
		{"rpm", "rpmdb", "", "writes and reads a package database", []string{"test"}},
		{"podman", "podman", "", "a local store that is scanned", []string{"test"}},
		{"containerd", "containerd", "", "a local store that is scanned", []string{"test"}},
		{"postgresql", "postgres", "/usr/lib/postgresql/*/bin/postgres", "the second database", []string{"test", "e2e"}},
		{"clamav-daemon", "clamd", "/usr/sbin/clamd", "to look for malware", []string{"test", "e2e"}},
		{"ruby", "ruby", "", "orders the versions of gems", []string{"test"}},
		{"php-cli", "php", "", "orders the versions of Composer", []string{"test"}},
		{"debootstrap", "debootstrap", "", "to build the image that is indexed", []string{"bench"}},
	}
	return slices.DeleteFunc(all, func(p Debian) bool { return !slices.Contains(p.Stages, stage) })
}

// Installed reports whether the package, or the same program from elsewhere, is
// there.
func (p Debian) Installed() bool {
	if p.File != "" {
		return p.newest() != ""
	}
	_, err := exec.LookPath(p.Program)
	return err == nil
}

// newest returns the file that proves the package, of the highest version where
// there are several; empty for none.
func (p Debian) newest() string {
	files, err := filepath.Glob(p.File)
	if err != nil || len(files) == 0 {
		return ""
	}
	return slices.MaxFunc(files, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
}

// InstallDebian installs what a stage lacks, where it may: as root, on Debian,
// and unless GATEHOUSE_NO_INSTALL=1 forbids it. It returns what is missing
// afterwards and, if that is anything, why.
func InstallDebian(ctx context.Context, stage string, log io.Writer) (missing []Debian, why error) {
	lacking := func() []Debian { return slices.DeleteFunc(DebianFor(stage), Debian.Installed) }
	missing = lacking()
	switch {
	case len(missing) == 0:
		return nil, nil
	case os.Getenv("GATEHOUSE_NO_INSTALL") == "1":
		return missing, errors.New("GATEHOUSE_NO_INSTALL=1")
	case !isDebian("/etc/os-release"):
		return missing, errors.New("this is not Debian")
	case os.Geteuid() != 0:
		return missing, errors.New("not root")
	}
	var list []string
	for _, p := range missing {
		list = append(list, p.Name)
	}
	fmt.Fprintf(log, "      installing %s\n", strings.Join(list, " "))
	why = aptInstall(ctx, list)
	missing = lacking()
	if why == nil && len(missing) > 0 {
		why = errors.New("apt-get did not bring it")
	}
	return missing, why
}

func isDebian(osRelease string) bool {
	b, err := os.ReadFile(osRelease)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key != "ID" && key != "ID_LIKE" {
			continue
		}
		if slices.Contains(strings.Fields(strings.Trim(value, `"'`)), "debian") {
			return true
		}
	}
	return false
}

func aptInstall(ctx context.Context, list []string) error {
	for _, args := range [][]string{
		{"update"},
		append([]string{"install", "-y", "--no-install-recommends"}, list...),
	} {
		args = append([]string{"-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"}, args...)
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 10 * time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get: %w%s", err, tail(string(out), 10))
		}
	}
	return nil
}
