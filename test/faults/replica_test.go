package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
)

const (
	adminPassword = "faults-password-of-no-value"
	// readyWait is far more than a start takes, on any machine.
	readyWait = 60 * time.Second
)

// binary builds gatehouse once for all tests; GATEHOUSE_TEST_RACE=1 puts the race
// detector in.
var binary = struct {
	sync.Once
	dir, path string
	err       error
}{}

func TestMain(m *testing.M) {
	code := m.Run()
	if binary.dir != "" {
		os.RemoveAll(binary.dir)
	}
	os.Exit(code)
}

func gatehouse(t testing.TB) string {
	t.Helper()
	binary.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "gatehouse-faults-"); binary.err != nil {
			return
		}
		binary.path = filepath.Join(binary.dir, "gatehouse")
		binary.err = e2e.Build(context.Background(), binary.path, os.Getenv("GATEHOUSE_TEST_RACE") == "1")
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

// seeded returns the source of everything random in a test.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("GATEHOUSE_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("GATEHOUSE_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// replica is one `gatehouse serve`, started again and again on one data directory.
// Every start picks a free port.
type replica struct {
	t     testing.TB
	name  string
	dir   string // the data directory lies in it
	flags []string
	env   []string

	mu      sync.Mutex
	process *e2e.Process
	url     atomic.Pointer[string] // nil while it is down
}

func newReplica(t testing.TB, name, dir string, flags ...string) *replica {
	t.Helper()
	return &replica{t: t, name: name, dir: dir, flags: flags, env: []string{"GATEHOUSE_ADMIN_PASSWORD=" + adminPassword}}
}

func (r *replica) data() string    { return filepath.Join(r.dir, "data") }
func (r *replica) logFile() string { return filepath.Join(r.dir, r.name+".log") }

// launch starts the process and does not wait for it.
func (r *replica) launch() {
	r.t.Helper()
	ready := r.readyFile()
	if err := os.Remove(ready); err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	args := append([]string{"serve", "--data", r.data(), "--listen", "127.0.0.1:0", "--admission-listen", "127.0.0.1:0",
		"--sbom-referrers=false", // the ledger knows what clients push
		"--ready-file", ready}, r.flags...)
	p, err := e2e.Start(r.t, e2e.Program{Name: gatehouse(r.t), Args: args, Env: r.env, Log: r.logFile()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.process = p
	r.mu.Unlock()
}

func (r *replica) readyFile() string { return filepath.Join(r.dir, r.name+".ready") }

// start starts the process and waits until it answers.
func (r *replica) start() {
	r.t.Helper()
	r.launch()
	if err := r.await(); err != nil {
		r.t.Fatal(err)
	}
}

// await waits for the ready file of a process that was launched.
func (r *replica) await() error {
	p := r.running()
	for deadline := time.Now().Add(readyWait); time.Now().Before(deadline); {
		if b, err := os.ReadFile(r.readyFile()); err == nil {
			url := strings.TrimSpace(string(b))
			r.url.Store(&url)
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended by itself: %w\n%s", r.name, p.Err(), p.LogTail())
		case <-time.After(time.Millisecond):
		}
	}
	return fmt.Errorf("%s is not ready after %s\n%s", r.name, readyWait, p.LogTail())
}

func (r *replica) running() *e2e.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.process
}

// kill is SIGKILL.
func (r *replica) kill() {
	r.url.Store(nil)
	r.running().Kill()
}

// terminate is SIGTERM, and the end of the process that follows: it must be a good
// one.
func (r *replica) terminate() error {
	p := r.running()
	if err := p.Terminate(); err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-time.After(readyWait):
		return fmt.Errorf("%s does not end after SIGTERM\n%s", r.name, p.LogTail())
	}
	r.url.Store(nil)
	p.Stop() // forgets it
	if err := p.Err(); err != nil {
		return fmt.Errorf("%s ended with %w after SIGTERM\n%s", r.name, err, p.LogTail())
	}
	return nil
}

// fsck runs `gatehouse fsck --deep` on what the replica that has ended left.
func (r *replica) fsck() error {
	args := []string{"fsck", "--deep", "--rate", "0", "--data", r.data()}
	for i, flag := range r.flags {
		if flag == "--database" || flag == "--storage" {
			args = append(args, flag, r.flags[i+1])
		}
	}
	cmd := exec.CommandContext(r.t.Context(), gatehouse(r.t), args...)
	cmd.Env = append(os.Environ(), r.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("gatehouse fsck: %w\n%s", err, out)
	}
	return nil
}

// complaints are lines of the log that no fault excuses.
func (r *replica) complaints() (found []string) {
	b, err := os.ReadFile(r.logFile())
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(b)) {
		for _, word := range []string{"panic", "DATA RACE", "fatal error", "goroutine "} {
			if strings.Contains(line, word) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found[:min(len(found), wrongMax)]
}

// newClient returns a client that spreads its requests over the replicas that are
// up. With one that is down it asks where nobody listens.
func newClient(t testing.TB, door sync.Locker, steps *atomic.Int64, replicas ...*replica) *client {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 8, DisableCompression: true, ResponseHeaderTimeout: answerWait,
	}
	t.Cleanup(transport.CloseIdleConnections)
	var turn atomic.Uint64
	return &client{
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return nil }},
		user: "admin", password: adminPassword, door: door, steps: steps,
		target: func() string {
			first := turn.Add(1)
			for i := range replicas {
				if url := replicas[(first+uint64(i))%uint64(len(replicas))].url.Load(); url != nil {
					return *url
				}
			}
			return "http://127.0.0.1:1"
		},
	}
}
