package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// used is what a process, or a piece of work in this one, has cost.
type used struct {
	wall, cpu time.Duration // cpu is user and system time
	rssMax    int64         // bytes; of a child only
}

// runUsed runs a program and tells what it used (wait4).
func runUsed(cmd *exec.Cmd) (used, error) {
	start := time.Now()
	out, err := cmd.CombinedOutput()
	u := used{wall: time.Since(start)}
	if err != nil {
		return u, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, out[max(0, len(out)-500):])
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.rssMax = int64(usage.Maxrss) << 10 // Linux counts KiB
	}
	return u, nil
}

// selfUsed runs work in this process and tells what it used. CPU time holds
// the garbage collector's share and that of every helper goroutine.
func selfUsed(work func() error) (used, error) {
	before, err := selfCPU()
	if err != nil {
		return used{}, err
	}
	start := time.Now()
	if err := work(); err != nil {
		return used{}, err
	}
	wall := time.Since(start)
	after, err := selfCPU()
	return used{wall: wall, cpu: after - before}, err
}

func selfCPU() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// median of an odd number of durations.
func median(list []time.Duration) time.Duration {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}

// buildGatehouse builds the product as `make build` does and returns its path.
func (b *bench) buildGatehouse(ctx context.Context) (string, error) {
	path := filepath.Join(b.work, "gatehouse")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", path, "./cmd/gatehouse")
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "PWD="+b.root)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/gatehouse: %w: %s", err, out[max(0, len(out)-500):])
	}
	return path, nil
}
