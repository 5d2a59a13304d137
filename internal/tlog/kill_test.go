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
	"strconv"
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
	envFile = "TLOG_TEST_FILE"
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

// TestAloneProcess is the process of [TestKilledAlone]: a log on SQLite that adds
// entries as fast as it can, and tells their places.
func TestAloneProcess(t *testing.T) {
	path := os.Getenv(envFile)
	if path == "" {
		t.Skip("it is run by TestKilledAlone")
	}
	seed, err := hex.DecodeString(os.Getenv(envKey))
	must(t, err)
	s, err := tlog.NewSigner(origin, ed25519.NewKeyFromSeed(seed))
	must(t, err)
	book, err := os.OpenFile(os.Getenv(envBook), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(t, err)
	d, err := db.OpenSQLite(t.Context(), path, db.Options{})
	must(t, err)
	l, err := tlog.New(t.Context(), d, origin, written{s, book}, quick)
	must(t, err)
	go l.Run(t.Context())
	for i := 0; ; i++ {
		entry := fmt.Sprintf("%d of %d", i, os.Getpid())
		in, err := l.AddAndWait(t.Context(), []byte(entry))
		must(t, err)
		fmt.Printf("added %d %s\n", in.Index, entry)
	}
}

// TestKilledAlone: a process with a log on SQLite is killed again and again. What
// it has given a place to has that place, and every tree that it has ever begun
// to sign is a beginning of the log.
func TestKilledAlone(t *testing.T) {
	s, v, key := newKey(t, origin)
	dir := t.TempDir()
	path, bookPath := filepath.Join(dir, "meta.db"), filepath.Join(dir, "book")
	places := map[string]int64{}
	for round := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAloneProcess$", "-test.v")
		cmd.Env = append(os.Environ(), envFile+"="+path, envKey+"="+hex.EncodeToString(key.Seed()), envBook+"="+bookPath)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 0; n < 10+round*7 && lines.Scan(); {
			var index int64
			if rest, ok := strings.CutPrefix(lines.Text(), "added "); ok {
				number, entry, _ := strings.Cut(rest, " ")
				index, err = strconv.ParseInt(number, 10, 64)
				must(t, err)
				places[entry] = index
				n++
			}
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // with an error: it was killed
	}
	d, err := db.OpenSQLite(t.Context(), path, db.Options{})
	must(t, err)
	defer d.Close()
	h := startOn(t, d, s, v, tlog.Options{})
	defer h.stop()
	for entry, index := range places {
		if in := h.add([]byte(entry)); in.Index != index {
			t.Errorf("%q is at %d, and was promised %d", entry, in.Index, index)
		}
	}
	last := h.checkpoint()
	if err := tlog.Check(t.Context(), h, last.Tree); err != nil {
		t.Error(err)
	}
	book := &ledger{trees: map[int64]tlog.Tree{}}
	readBook(t, book, bookPath)
	if len(book.trees) < len(places)/2 {
		t.Errorf("%d trees were signed for %d entries", len(book.trees), len(places))
	}
	book.check(t, h, last.Tree)
}

// readBook reads what a process has written down before it signed.
func readBook(t *testing.T, into *ledger, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	for line := range strings.Lines(string(text)) {
		msg, err := hex.DecodeString(strings.TrimSpace(line))
		must(t, err)
		into.note(string(msg))
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
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	const each = 8
	torment(t, l, all[:], env, rounds, each)
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
		readBook(t, book, env(i)[2][len(envBook)+1:])
	}
	t.Logf("%d trees were signed", len(book.trees))
	book.check(t, h, last.Tree)
}

// torment adds entries and stops, wakes and kills sequencers meanwhile. In the
// end all are awake.
func torment(t *testing.T, l *tlog.Log, all []*process, env func(int) []string, rounds, each int) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
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
		victim := random.IntN(len(all))
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
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
