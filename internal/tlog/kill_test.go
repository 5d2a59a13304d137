//go:build unix

package tlog_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// What a sequencer's process is told in its environment.
const (
	envURL  = "TLOG_TEST_DATABASE"
	envKey  = "TLOG_TEST_KEY"
	envBook = "TLOG_TEST_BOOK"
)

// quick is how the sequencers of processes are tuned.
var quick = tlog.Options{Lease: 300 * time.Millisecond, Interval: time.Millisecond, WaitMax: 2 * time.Minute}

// written is a key that writes what it signs to a file before it signs.
type written struct {
	note.Signer
	book *os.File
}

func (w written) Sign(msg []byte) ([]byte, error) {
	if _, err := w.book.WriteString(hex.EncodeToString(msg) + "\n"); err != nil {
		return nil, err
	}
	return w.Signer.Sign(msg)
}

// TestSequencerProcess is a process of [TestKilled]: a sequencer that stands
// still now and then, sometimes for longer than its lease, until it is killed or
// its standard input ends.
func TestSequencerProcess(t *testing.T) {
	if os.Getenv(envURL) == "" {
		t.Skip("it is run by TestKilled")
	}
	seed, err := hex.DecodeString(os.Getenv(envKey))
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlog.NewSigner(origin, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	book, err := os.OpenFile(os.Getenv(envBook), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	d, err := db.OpenPostgres(t.Context(), os.Getenv(envURL), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := tlog.New(t.Context(), d, origin, written{s, book}, quick)
	if err != nil {
		t.Fatal(err)
	}
	l.SetHook(func(_ context.Context, step string) {
		switch rand.IntN(20) {
		case 0:
			time.Sleep(2 * quick.Lease) // the fault that is injected
		case 1, 2, 3:
			time.Sleep(rand.N(20 * time.Millisecond))
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	fmt.Println("ready")
	if err := l.Run(ctx); err != nil {
		t.Error(err)
	}
}

// process is a sequencer in a process of its own.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

func spawn(t *testing.T, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSequencerProcess$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
	}
	go io.Copy(io.Discard, out) // until the process ends
	return &process{cmd, in}
}

// end ends the process with a signal. It may be stopped.
func (p *process) end() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // with an error: it was killed
	p.stdin.Close()
}

// TestKilled: three sequencers in processes of their own stand still at random,
// are stopped, woken and killed at random, while entries are added. Every entry
// gets its place, and of all trees that any of them has ever begun to sign each
// is a beginning of the log: no two of one size differ.
func TestKilled(t *testing.T) {
	url := dbtest.Postgres(t)
	_, v, key := newKey(t, origin)
	s, err := tlog.NewSigner(origin, key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	env := func(i int) []string {
		return []string{envURL + "=" + url, envKey + "=" + hex.EncodeToString(key.Seed()), envBook + "=" + filepath.Join(dir, fmt.Sprint("book", i))}
	}
	l, err := tlog.New(t.Context(), dbtest.Open(t, url, db.Options{}), origin, s, quick)
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{Log: l, t: t, key: v}
	const processes = 3
	var all [processes]*process
	for i := range all {
		all[i] = spawn(t, env(i)...)
	}
	defer func() {
		for _, p := range all {
			p.end()
		}
	}()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	const each = 8
	stopped := -1
	for round := range rounds {
		waits := make(chan struct{}, each)
		for i := range each {
			go func() {
				defer func() { waits <- struct{}{} }()
				if _, err := l.AddAndWait(t.Context(), fmt.Appendf(nil, "%d of round %d", i, round)); err != nil {
					t.Error(err)
				}
			}()
		}
		victim := random.IntN(processes)
		switch random.IntN(4) {
		case 0:
			all[victim].end()
			if stopped == victim {
				stopped = -1
			}
			all[victim] = spawn(t, env(victim)...)
		case 1, 2: // one at a time, so that somebody is left to work
			if stopped >= 0 {
				must(t, all[stopped].cmd.Process.Signal(syscall.SIGCONT))
			}
			stopped = victim
			must(t, all[victim].cmd.Process.Signal(syscall.SIGSTOP))
		}
		for range each {
			<-waits
		}
	}
	if stopped >= 0 {
		must(t, all[stopped].cmd.Process.Signal(syscall.SIGCONT))
	}
	h.add([]byte("the end"))
	last := h.checkpoint()
	if last.Tree.N != int64(rounds*each+1) {
		t.Errorf("%d entries, want %d", last.Tree.N, rounds*each+1)
	}
	if err := tlog.Check(t.Context(), h, last.Tree); err != nil {
		t.Error(err)
	}
	book := &ledger{trees: map[int64]tlog.Tree{}}
	for i := range all {
		text, err := os.ReadFile(env(i)[2][len(envBook)+1:])
		must(t, err)
		for line := range strings.Lines(string(text)) {
			msg, err := hex.DecodeString(strings.TrimSpace(line))
			must(t, err)
			book.note(string(msg))
		}
	}
	t.Logf("%d trees were signed", len(book.trees))
	book.check(t, h, last.Tree)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
