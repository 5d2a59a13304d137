// Package witness is both halves of C2SP tlog-witness: a witness, which remembers
// the last checkpoint of each log it knows and cosigns what is consistent with it,
// and the collector of cosignatures, which a log asks before a checkpoint is out.
//
// A witness is worth as much as its memory: it must live on another machine than
// the log, and its state must not be put back to an earlier one.
package witness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// Witness remembers and cosigns checkpoints. It is safe for concurrent use; its
// directory must belong to one process.
type Witness struct {
	dir    string
	signer note.Signer
	logs   atomic.Pointer[map[string][]note.Verifier] // by origin

	mu sync.Mutex // one checkpoint at a time: compare, remember, sign
}

// New opens a witness that keeps its memory in a directory and signs with signer,
// see [tlog.NewCosigner]; nil makes one that only remembers. logs are the keys of
// the logs that it knows, whose names are their origins; see [Witness.Know].
func New(dir string, signer note.Signer, logs ...note.Verifier) (*Witness, error) {
	w := &Witness{dir: dir, signer: signer}
	w.Know(logs...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the witness has nowhere to remember: %w", err)
	}
	return w, nil
}

// Know has the witness know these keys of logs from now on, and no others. A log may
// have several: when it gets a new one its tree goes on, and so does the witness.
func (w *Witness) Know(logs ...note.Verifier) {
	known := map[string][]note.Verifier{}
	for _, log := range logs {
		known[log.Name()] = append(known[log.Name()], log)
	}
	w.logs.Store(&known)
}

// open reads a checkpoint that one of the known keys of a log has signed.
// CodeNotFound: there is none. CodeDenied: none of them has. CodeInvalid: it is no
// checkpoint.
func (w *Witness) open(origin string, signed []byte) (c tlog.Checkpoint, n *note.Note, err error) {
	keys := (*w.logs.Load())[origin]
	if len(keys) == 0 {
		return c, nil, gatehouse.Errorf(gatehouse.CodeNotFound, "the log %q is not known here", origin)
	}
	for _, key := range keys {
		if c, n, err = tlog.OpenCheckpoint(signed, origin, key); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
			break // it is good, or of no key
		}
	}
	return c, n, err
}

// Last returns the last checkpoint of a log that was accepted. ok is false where
// there is none yet.
func (w *Witness) Last(origin string) (c tlog.Checkpoint, ok bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last(origin)
}

func (w *Witness) file(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(w.dir, hex.EncodeToString(sum[:])+".checkpoint")
}

func (w *Witness) last(origin string) (c tlog.Checkpoint, ok bool, err error) {
	signed, err := os.ReadFile(w.file(origin))
	if os.IsNotExist(err) {
		return c, false, nil
	}
	if err != nil {
		return c, false, gatehouse.Errorf(gatehouse.CodeUnavailable, "the witness cannot remember: %w", err)
	}
	// Its signature was checked when it came, by a key that may be another by now.
	text, _, _ := strings.Cut(string(signed), "\n\n")
	if c, err = tlog.ParseCheckpoint(text + "\n"); err != nil || c.Origin != origin {
		return c, false, gatehouse.Errorf(gatehouse.CodeDamaged, "%s is no checkpoint of %s", w.file(origin), origin).
			WithHint("restore the file: without it the log could be another one from here on")
	}
	return c, true, nil
}

// Refusal is why a witness does not cosign.
type Refusal struct {
	Status int   // of HTTP, as tlog-witness has it
	Size   int64 // with a conflict: of the last checkpoint that was accepted
	err    error
}

func (r *Refusal) Error() string { return r.err.Error() }

// Unwrap returns the error with its code.
func (r *Refusal) Unwrap() error { return r.err }

func refuse(status int, code gatehouse.Code, format string, args ...any) *Refusal {
	return &Refusal{Status: status, err: gatehouse.Errorf(code, format, args...)}
}

// Update accepts a checkpoint that a log has signed, if proof shows that its tree
// begins with the one of old entries that was accepted last, remembers it, and
// returns the cosignature, a line of a note; nothing where the witness has no key.
// An error that is a [*Refusal] is of the request, any other is of the witness.
func (w *Witness) Update(old int64, proof []tlog.Hash, signed []byte) (cosignature []byte, err error) {
	origin, _, _ := strings.Cut(string(signed), "\n")
	c, n, err := w.open(origin, signed)
	switch gatehouse.CodeOf(err) {
	case "":
	case gatehouse.CodeNotFound:
		return nil, refuse(404, gatehouse.CodeNotFound, "%w", err)
	case gatehouse.CodeDenied:
		return nil, refuse(403, gatehouse.CodeDenied, "%w", err)
	default:
		return nil, refuse(400, gatehouse.CodeInvalid, "%w", err)
	}
	if old > c.Tree.N {
		return nil, refuse(400, gatehouse.CodeInvalid, "the old size %d is larger than the checkpoint's %d", old, c.Tree.N)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok, err := w.last(origin)
	if err != nil {
		return nil, err
	}
	if last.Tree.N != old {
		r := refuse(409, gatehouse.CodeConflict, "the last checkpoint here has %d entries, not %d", last.Tree.N, old)
		r.Size = last.Tree.N
		return nil, r
	}
	if ok && old == c.Tree.N && last.Tree != c.Tree {
		r := refuse(409, gatehouse.CodeConflict, "the log has two trees of %d entries", old)
		r.Size = last.Tree.N
		return nil, r
	}
	if err := tlog.CheckConsistency(proof, last.Tree, c.Tree); err != nil {
		return nil, refuse(422, gatehouse.CodeDenied, "%w", err)
	}
	return w.accept(origin, n, signed)
}

// accept remembers a checkpoint, and signs it then. mu is held.
func (w *Witness) accept(origin string, n *note.Note, signed []byte) ([]byte, error) {
	if err := tlog.WriteFile(w.file(origin), signed); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the witness cannot remember: %w", err)
	}
	if w.signer == nil {
		return nil, nil
	}
	all, err := note.Sign(&note.Note{Text: n.Text}, w.signer)
	if err != nil {
		return nil, fmt.Errorf("couldn't cosign: %w", err)
	}
	return all[len(n.Text)+1:], nil
}

// Seen is what [Witness.Follow] has found.
type Seen struct {
	Before, Now tlog.Checkpoint // Before is empty the first time
	First       bool
	Cosignature []byte
}

// Follow reads the newest checkpoint of a log, proves from its tiles that it is
// consistent with the last one, and remembers it.
// A [*Contradiction]: it is not. CodeDenied: it is not signed by a key of the log
// that is known here, which proves nothing.
func (w *Witness) Follow(ctx context.Context, from tlog.Source, origin string) (seen Seen, err error) {
	before, ok, err := w.Last(origin)
	if err != nil {
		return seen, err
	}
	signed, err := from.Checkpoint(ctx)
	if err != nil {
		return seen, err
	}
	seen.Before, seen.First = before, !ok
	if seen.Now, _, err = w.open(origin, signed); err != nil {
		return seen, err
	}
	proof, err := tlog.Consistency(ctx, from, before.Tree, seen.Now.Tree)
	if gatehouse.CodeOf(err) == gatehouse.CodeDenied {
		return seen, w.keep(origin, signed, err)
	}
	if err != nil {
		return seen, err
	}
	if seen.Cosignature, err = w.Update(before.Tree.N, proof, signed); err != nil {
		return seen, err
	}
	return seen, nil
}

// Contradiction is the error of a log whose tree does not begin with the one before.
// The checkpoint that shows it is kept in the directory, as proof.
type Contradiction struct{ err error }

func (c *Contradiction) Error() string { return c.err.Error() }

// Unwrap returns the error with its code, CodeDenied.
func (c *Contradiction) Unwrap() error { return c.err }

// keep keeps a checkpoint that contradicts the last one: both are signed by the
// log, so that everybody can see it.
func (w *Witness) keep(origin string, signed []byte, why error) error {
	name := strings.TrimSuffix(w.file(origin), ".checkpoint") + ".contradiction"
	if err := tlog.WriteFile(name, signed); err != nil {
		return &Contradiction{gatehouse.Errorf(gatehouse.CodeDenied, "%w; the checkpoint that shows it could not be kept: %w", why, err)}
	}
	return &Contradiction{gatehouse.Errorf(gatehouse.CodeDenied, "%w", why).
		WithHint("%s and %s are both signed by the log: together they prove it", w.file(origin), name)}
}
