package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// debianSuite is the release that is indexed. Its point releases move on, so
// figures compare within one run only.
const debianSuite = "bookworm"

// debianLayer returns the path of a gzipped layer with a minimal Debian in it,
// as `FROM scratch; ADD rootfs.tar.gz /` would make it. The first call builds
// it with debootstrap, which needs root and a Debian mirror
// (GATEHOUSE_BENCH_MIRROR; else debootstrap's own choice).
func debianLayer(ctx context.Context, b *bench) (string, error) {
	path := filepath.Join(b.cache, "debian-"+debianSuite+"-minbase.tar.gz")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if missing, why := tool.InstallDebian(ctx, "bench", b.log); len(missing) > 0 {
		return "", fmt.Errorf("%s is not installed: %w", missing[0].Program, why)
	}
	if os.Geteuid() != 0 {
		return "", errors.New("debootstrap needs root")
	}
	rootfs := filepath.Join(b.work, "rootfs")
	args := []string{"--variant=minbase", debianSuite, rootfs}
	if mirror := os.Getenv("GATEHOUSE_BENCH_MIRROR"); mirror != "" {
		args = append(args, mirror)
	}
	fmt.Fprintf(b.log, "      debootstrap, once (kept as %s)\n", path)
	if err := quiet(ctx, "debootstrap", args...); err != nil {
		return "", err
	}
	tmp := path + ".tmp"
	defer os.Remove(tmp)
	if err := quiet(ctx, "tar", "-C", rootfs, "--numeric-owner", "--sort=name", "--exclude=./dev/*",
		"--exclude=./var/cache/apt/archives/*.deb", "-czf", tmp, "."); err != nil {
		return "", err
	}
	return path, os.Rename(tmp, path)
}

// quiet runs a program whose output matters only if it fails.
func quiet(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		b := out.Bytes()
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(b[max(0, len(b)-500):]))
	}
	return nil
}
