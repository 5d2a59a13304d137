package tool

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// heartbeat is how often a long build says that it is alive: the API server
// takes minutes, and silence looks like a hang.
const heartbeat = 30 * time.Second

// Ensure returns the path of the tool's binary, building it first where the
// cache has none. root is the folder of the main module; progress goes to log.
// Concurrent calls are safe: the binary appears by rename. Builds are gentle
// (nice, two at a time), because tests run on small machines.
func (t Tool) Ensure(ctx context.Context, root string, log io.Writer) (string, error) {
	version, err := t.Version(root)
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	revision, err := t.revision(root)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, t.Name+"-"+version+revision)
	path := filepath.Join(dir, t.Name)
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	start := time.Now()
	fmt.Fprintf(log, "      building %s %s (kept in %s)\n", t.Name, version, dir)
	built := filepath.Join(tmp, t.Name)
	if t.File != "" {
		err = t.copy(ctx, root, built)
	} else {
		err = t.build(ctx, root, version, built, log)
	}
	if err != nil {
		return "", err
	}
	if err := os.Rename(built, path); err != nil {
		return "", err
	}
	fmt.Fprintf(log, "      built %s %s in %.0f s\n", t.Name, version, time.Since(start).Seconds())
	return path, nil
}

// copy takes a file out of the module, whose go.sum is checked as it is fetched.
func (t Tool) copy(ctx context.Context, root, out string) error {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", t.Module)
	cmd.Dir = filepath.Join(root, "test", "tools", t.Dir)
	cmd.Env = append(os.Environ(), "GOWORK=off", "PWD="+cmd.Dir)
	b, err := cmd.Output()
	var module struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(b, &module); jsonErr != nil || module.Error != "" || err != nil {
		return fmt.Errorf("fetching %s: %s", t.Module, cmp.Or(module.Error, fmt.Sprint(errors.Join(err, jsonErr))))
	}
	content, err := os.ReadFile(filepath.Join(module.Dir, filepath.FromSlash(t.File)))
	if err != nil {
		return err
	}
	return os.WriteFile(out, content, 0o644)
}

func (t Tool) build(ctx context.Context, root, version, out string, log io.Writer) error {
	ldflags := "-s -w"
	if t.LDFlags != "" {
		ldflags += " " + fmt.Sprintf(t.LDFlags, version)
	}
	args := []string{"go", "build", "-p", "2", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", out, t.Package}
	if nice, err := exec.LookPath("nice"); err == nil {
		args = append([]string{nice, "-n", "10"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = filepath.Join(root, "test", "tools", t.Dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "PWD="+cmd.Dir)
	cmd.Env = append(cmd.Env, t.BuildEnv...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	stop := beat(log, t.Name)
	err := cmd.Run()
	stop()
	if err != nil {
		return fmt.Errorf("building %s: %w%s", t.Name, err, tail(output.String(), 15))
	}
	return nil
}

// beat writes a line now and then until it is stopped.
func beat(log io.Writer, what string) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	start := time.Now()
	go func() {
		defer close(gone)
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(log, "      still building %s, %.0f s\n", what, time.Since(start).Seconds())
			}
		}
	}()
	return func() { close(done); <-gone }
}

// tail returns the last lines of s, each indented, on lines of their own.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "\n\t" + strings.Join(all, "\n\t")
}
