package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// packageTimeout ends a test binary that hangs; its stacks are the output.
const packageTimeout = "25m"

// processes are the packages that run the binary beside other servers, for
// minutes: they belong to `make e2e` alone.
var processes = []string{"test/e2e", "test/faults"}

// goPackages lists the packages of the main module for `make test`: those for
// the race detector apart, without the end-to-end tests and what has run as a
// check.
func (r *runner) goPackages(ctx context.Context) (fast, race []string, err error) {
	cmd := r.command(ctx, "go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("go list: %w: %s", err, lastLines(stderr.String(), 3))
	}
	for _, path := range strings.Fields(string(out)) {
		rel := short(path)
		switch {
		case slices.Contains(processes, rel) || rel == "internal/arch":
		case slices.ContainsFunc(raced, func(box string) bool {
			return rel == "internal/"+box || strings.HasPrefix(rel, "internal/"+box+"/")
		}):
			race = append(race, path)
		default:
			fast = append(fast, path)
		}
	}
	return fast, race, nil
}

// e2ePackages finds the packages with tests that ask for a tool of this stage
// which `make test` does not have: those of processes, and whoever reads
// GATEHOUSE_COSIGN and the like.
func (r *runner) e2ePackages() ([]string, error) {
	var asks [][]byte
	for _, t := range tool.For("e2e") {
		if !slices.Contains(t.Stages, "test") {
			asks = append(asks, []byte(t.Env()), fmt.Appendf(nil, "tool.Need(t, %q)", t.Name))
		}
	}
	found := map[string]bool{}
	for _, rel := range processes {
		if _, err := os.Stat(filepath.Join(r.root, filepath.FromSlash(rel))); err == nil {
			found["./"+rel] = true
		}
	}
	err := filepath.WalkDir(r.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(r.root, path)
		if d.IsDir() {
			name := d.Name()
			// What tests the runner itself only mentions the tools.
			skip := rel == "test/run" || rel == "test/tool" || rel == "test/tools"
			if rel != "." && (skip || strings.HasPrefix(name, ".") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(asks, func(ask []byte) bool { return bytes.Contains(src, ask) }) {
			found["./"+filepath.ToSlash(filepath.Dir(rel))] = true
		}
		return nil
	})
	var list []string
	for dir := range found {
		list = append(list, dir)
	}
	slices.Sort(list)
	return list, err
}

// goTest runs the tests of the packages, never from the cache, and counts them.
func (r *runner) goTest(ctx context.Context, race bool, list []string) {
	if len(list) == 0 {
		r.say("no packages")
		return
	}
	args, env := []string{"test", "-json", "-count=1", "-vet=off", "-timeout", packageTimeout}, []string{"CGO_ENABLED=0"}
	if race {
		args, env = append(args, "-race"), []string{"CGO_ENABLED=1"}
		if dir := inMemory(); dir != "" {
			defer os.RemoveAll(dir)
			env = append(env, "TMPDIR="+dir, "GOTMPDIR="+os.TempDir()) // what the go command builds stays on the disk
		}
	}
	cmd := r.command(ctx, "go", append(args, list...)...)
	cmd.Env = append(cmd.Env, env...)
	runGoTest(cmd, r.out, r.tally)
}

// inMemory makes a directory in a file system that has no disk, or returns "" where
// there is none with room. Races are in what runs, not in the disk: waiting for it took
// most of the time of the tests under the detector. Without it they run on the disk.
func inMemory() string {
	const shm, room = "/dev/shm", 8 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shm, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < room {
		return ""
	}
	dir, err := os.MkdirTemp(shm, "gatehouse-test-")
	if err != nil {
		return ""
	}
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL runs as another user
		os.RemoveAll(dir)
		return ""
	}
	return dir
}

// runGoTest starts `go test -json` and counts what it says. That the go command
// failed without naming a test, or that no test ran at all, is a failure.
func runGoTest(cmd *exec.Cmd, out io.Writer, t *tally) {
	out = &shared{w: out} // the go command's complaints come in between
	mine := newTally()
	problem := func(format string, args ...any) {
		mine.add(record{Test: strings.Join(cmd.Args[:2], " "), Reason: fmt.Sprintf(format, args...)})
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		problem("%v", err)
	}
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		problem("%v", err)
	} else {
		if err := newGotest(out, mine).read(stdout); err != nil {
			problem("%v", err)
		}
		err := cmd.Wait()
		switch {
		case err != nil && !mine.failed():
			problem("%v", err)
		case mine.count(passed)+mine.count(failed)+mine.count(skipped) == 0:
			problem("no test ran")
		}
	}
	for _, r := range mine.sorted() {
		t.add(r)
	}
}

// shared is a writer for two goroutines.
type shared struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}
