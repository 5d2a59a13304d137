package witness_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/tessera"
	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
	"github.com/gatehouse-dev/gatehouse/internal/tlog/witness"
)

const (
	origin = "log.example"
	name   = "witness.example/w1"
)

var discard = slog.New(slog.DiscardHandler)

// logger is a log with a sequencer.
type logger struct {
	*tlog.Log
	t *testing.T
}

// key makes the key of a log.
func key(t *testing.T, name string) (note.Signer, note.Verifier) {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlog.NewSigner(name, private)
	if err != nil {
		t.Fatal(err)
	}
	v, err := tlog.NewVerifier(name, pub)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func newLog(t *testing.T, s note.Signer, opts tlog.Options) *logger {
	t.Helper()
	d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	opts.Interval = time.Millisecond
	l, err := tlog.New(t.Context(), d, s.Name(), s, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { stop(); <-ended })
	return &logger{l, t}
}

func (l *logger) add(entry string) tlog.Included {
	l.t.Helper()
	in, err := l.AddAndWait(l.t.Context(), []byte(entry))
	if err != nil {
		l.t.Fatal(err)
	}
	return in
}

// newWitness makes a witness and returns its public key.
func newWitness(t *testing.T, dir string, logs ...note.Verifier) (*witness.Witness, string) {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlog.NewCosigner(name, private, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w, err := witness.New(dir, s, logs...)
	if err != nil {
		t.Fatal(err)
	}
	return w, tlog.CosignerKey(name, pub)
}

func serve(t *testing.T, w *witness.Witness) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(w.Handler(discard))
	t.Cleanup(s.Close)
	return s
}

// TestCosigned: the log asks its witness for each checkpoint before it is out, so
// that each entry comes with a cosigned one; a witness that goes away does not
// stop the log, and gets what it missed in one step.
func TestCosigned(t *testing.T) {
	s, v := key(t, origin)
	dir := t.TempDir()
	w, text := newWitness(t, dir, v)
	server := serve(t, w)
	remote, err := witness.ParseRemote(text + " " + server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	_, deadKey := newWitness(t, t.TempDir(), v)
	dead, err := witness.ParseRemote(deadKey + " " + gone.URL)
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(t, s, tlog.Options{Witnesses: witness.NewCollector(server.Client(), discard, remote, dead)})
	theirs, err := fnote.NewVerifierForCosignatureV1(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		in := l.add(fmt.Sprint("entry ", i))
		c, n, err := tlog.OpenCheckpoint(in.Checkpoint, origin, v, theirs)
		if err != nil || len(n.Sigs) != 2 || c.Tree != in.Tree {
			t.Fatalf("entry %d: %d signatures %v\n%s", i, len(n.Sigs), err, in.Checkpoint)
		}
		last, ok, err := w.Last(origin)
		if err != nil || !ok || last.Tree.N < in.Tree.N {
			t.Errorf("the witness remembers %+v %v", last, err)
		}
	}
	server.Close()
	in := l.add("without the witness")
	if _, n, err := tlog.OpenCheckpoint(in.Checkpoint, origin, v, theirs); err != nil || len(n.Sigs) != 1 {
		t.Fatalf("%v\n%s", err, in.Checkpoint)
	}
	back := serve(t, w)
	remote.URL = back.URL
	again := witness.NewCollector(back.Client(), discard, remote)
	lines := again.Cosign(t.Context(), in.Checkpoint, func(ctx context.Context, size int64) ([]tlog.Hash, error) {
		if size == 0 {
			return nil, nil
		}
		old, _, err := w.Last(origin)
		if err != nil || old.Tree.N != size {
			t.Errorf("asked for a proof from %d, the witness is at %d", size, old.Tree.N)
		}
		return tlog.Consistency(ctx, l, old.Tree, in.Tree)
	})
	if !bytes.HasPrefix(lines, []byte("— "+name+" ")) {
		t.Errorf("cosignatures: %q", lines)
	}
}

// TestTesseraAsksUs: Tessera's own client of witnesses is content with ours.
func TestTesseraAsksUs(t *testing.T) {
	s, v := key(t, origin)
	w, text := newWitness(t, t.TempDir(), v)
	server := serve(t, w)
	policy := fmt.Sprintf("witness w1 %s %s\nquorum w1\n", text, server.URL)
	group, err := tessera.NewWitnessGroupFromPolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(t, s, tlog.Options{})
	in := l.add("entry")
	urls := group.Endpoints()
	if len(urls) != 1 {
		t.Fatalf("%v", urls)
	}
	for url := range urls {
		res, err := server.Client().Post(url, "text/plain", bytes.NewReader(witness.WriteRequest(0, nil, in.Checkpoint)))
		if err != nil {
			t.Fatal(err)
		}
		line, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%s %s %v", res.Status, line, err)
		}
		if !group.Satisfied(append(bytes.Clone(in.Checkpoint), line...)) {
			t.Errorf("the group is not satisfied with\n%s%s", in.Checkpoint, line)
		}
	}
}

// TestRefusals: each clause of tlog-witness by which a witness must refuse.
func TestRefusals(t *testing.T) {
	s, v := key(t, origin)
	l := newLog(t, s, tlog.Options{})
	one := l.add("one")
	two := l.add("two")
	three := l.add("three")
	proof, err := tlog.Consistency(t.Context(), l, one.Tree, three.Tree)
	if err != nil {
		t.Fatal(err)
	}
	fork := newLog(t, s, tlog.Options{})
	fork.add("one")
	fork.add("not two")
	forked := fork.add("three")
	other, _ := key(t, "other.example")
	unknown, err := tlog.SignCheckpoint("other.example", one.Tree, other)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := key(t, origin)
	unsigned, err := tlog.SignCheckpoint(origin, three.Tree, stranger)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := newWitness(t, t.TempDir(), v)
	server := serve(t, w)
	post := func(body []byte) (status int, kind, answer string) {
		res, err := server.Client().Post(server.URL+"/add-checkpoint", "", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Header.Get("Content-Type"), string(text)
	}
	if status, _, answer := post(witness.WriteRequest(0, nil, one.Checkpoint)); status != 200 {
		t.Fatalf("the first checkpoint: %d %s", status, answer)
	}
	long := make([]tlog.Hash, 64)
	for what, c := range map[string]struct {
		body   []byte
		status int
	}{
		"unknown log":            {witness.WriteRequest(0, nil, unknown), 404},
		"signed by a stranger":   {witness.WriteRequest(1, proof, unsigned), 403},
		"old beyond new":         {witness.WriteRequest(9, nil, three.Checkpoint), 400},
		"old is another":         {witness.WriteRequest(0, nil, three.Checkpoint), 409},
		"old is another, again":  {witness.WriteRequest(2, proof, three.Checkpoint), 409},
		"no proof":               {witness.WriteRequest(1, nil, three.Checkpoint), 422},
		"proof of something":     {witness.WriteRequest(1, proof, two.Checkpoint), 422},
		"forked":                 {witness.WriteRequest(1, proof, forked.Checkpoint), 422},
		"two trees of one size":  {witness.WriteRequest(1, nil, firstOf(t, s)), 409},
		"proof beyond the limit": {witness.WriteRequest(1, long, three.Checkpoint), 400},
		"no empty line":          {[]byte("old 1\n"), 400},
		"no size":                {[]byte("old x\n\n" + string(three.Checkpoint)), 400},
		"size with a zero":       {[]byte("old 01\n\n" + string(three.Checkpoint)), 400},
		"no hash":                {[]byte("old 1\nAAAA\n\n" + string(three.Checkpoint)), 400},
		"no note":                {[]byte("old 1\n\n" + origin + "\nhello"), 400},
		"too long":               {bytes.Repeat([]byte("x"), 65<<10), 400},
	} {
		status, kind, answer := post(c.body)
		if status != c.status {
			t.Errorf("%s: %d %s, want %d", what, status, answer, c.status)
		}
		if c.status == 409 && (kind != "text/x.tlog.size" || answer != "1\n") {
			t.Errorf("%s: %s %q", what, kind, answer)
		}
	}
	if last, _, err := w.Last(origin); err != nil || last.Tree != one.Tree {
		t.Fatalf("it remembers %+v %v", last, err)
	}
	for _, in := range []tlog.Included{three, three} { // the same one again is no conflict
		old, _, _ := w.Last(origin)
		proof, err := tlog.Consistency(t.Context(), l, old.Tree, in.Tree)
		if err != nil {
			t.Fatal(err)
		}
		if status, _, answer := post(witness.WriteRequest(old.Tree.N, proof, in.Checkpoint)); status != 200 || !strings.HasPrefix(answer, "— "+name+" ") {
			t.Errorf("%d %s", status, answer)
		}
	}
}

// firstOf is the checkpoint of another log with the same key and one entry.
func firstOf(t *testing.T, s note.Signer) []byte {
	return newLog(t, s, tlog.Options{}).add("another first").Checkpoint
}

// TestKnow: a log that changes its key is known by both, until one is said to be no
// longer its key.
func TestKnow(t *testing.T) {
	s, v := key(t, origin)
	next, nextV := key(t, origin)
	one := newLog(t, s, tlog.Options{}).add("one")
	again, err := tlog.SignCheckpoint(origin, one.Tree, next)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := newWitness(t, t.TempDir(), v)
	status := func(old int64, signed []byte) int {
		var no *witness.Refusal
		switch _, err := w.Update(old, nil, signed); {
		case err == nil:
			return 200
		case errors.As(err, &no):
			return no.Status
		default:
			t.Fatal(err)
			return 0
		}
	}
	for i, c := range []struct {
		keys   []note.Verifier
		signed []byte
		want   int
	}{
		{[]note.Verifier{v}, one.Checkpoint, 200},
		{[]note.Verifier{v}, again, 403},
		{[]note.Verifier{v, nextV}, one.Checkpoint, 200},
		{[]note.Verifier{v, nextV}, again, 200},
		{[]note.Verifier{nextV}, one.Checkpoint, 403},
		{nil, again, 404},
	} {
		w.Know(c.keys...)
		if got := status(min(int64(i), 1), c.signed); got != c.want {
			t.Errorf("step %d: %d, want %d", i, got, c.want)
		}
	}
}

// TestFollow: a follower proves each step from the tiles, remembers across
// restarts, refuses a log that forks or shrinks, and keeps the proof of that.
func TestFollow(t *testing.T) {
	s, v := key(t, origin)
	l := newLog(t, s, tlog.Options{})
	dir := t.TempDir()
	open := func() *witness.Witness {
		w, err := witness.New(dir, nil, v)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	l.add("one")
	seen, err := open().Follow(t.Context(), l, origin)
	if err != nil || !seen.First || seen.Now.Tree.N != 1 || seen.Cosignature != nil {
		t.Fatalf("%+v %v", seen, err)
	}
	for i := range 5 {
		l.add(fmt.Sprint("entry ", i))
		if seen, err = open().Follow(t.Context(), l, origin); err != nil || seen.First {
			t.Fatalf("%+v %v", seen, err)
		}
	}
	fork := newLog(t, s, tlog.Options{})
	for i := range 10 {
		fork.add(fmt.Sprint("forked ", i))
	}
	small := newLog(t, s, tlog.Options{})
	small.add("one")
	for what, from := range map[string]tlog.Source{"fork": fork, "shrunk": small} {
		_, err := open().Follow(t.Context(), from, origin)
		if gatehouse.CodeOf(err) != gatehouse.CodeDenied {
			t.Errorf("%s: %v", what, err)
		}
		kept, err := filepath.Glob(filepath.Join(dir, "*.contradiction"))
		if err != nil || len(kept) != 1 {
			t.Fatalf("%s: kept %v %v", what, kept, err)
		}
		proof, err := os.ReadFile(kept[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := tlog.OpenCheckpoint(proof, origin, v); err != nil {
			t.Errorf("%s: what is kept is no proof: %v", what, err)
		}
	}
	if last, _, err := open().Last(origin); err != nil || last.Tree != seen.Now.Tree {
		t.Errorf("it remembers %+v, and saw %+v %v", last, seen.Now, err)
	}
	if err := os.WriteFile(firstFile(t, dir), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open().Follow(t.Context(), l, origin); gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
		t.Errorf("with a damaged memory: %v", err)
	}
}

func firstFile(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.checkpoint"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%v %v", names, err)
	}
	return names[0]
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("old 1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nlog.example\n"))
	f.Add([]byte("old 0\n\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		old, proof, signed, err := witness.ParseRequest(body)
		if err == nil && !bytes.Equal(witness.WriteRequest(old, proof, signed), body) {
			t.Fatalf("%q became %d %v %q", body, old, proof, signed)
		}
	})
}
