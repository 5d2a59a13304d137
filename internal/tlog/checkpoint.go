package tlog

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/gatehouse-dev/gatehouse"
)

// Checkpoint is a statement of a log: so many entries, this root (C2SP
// tlog-checkpoint).
type Checkpoint struct {
	Origin string
	Tree   Tree
	// Extra are the extension lines; this program writes none.
	Extra []string
}

// body is what is signed.
func (c Checkpoint) body() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Tree.N, base64.StdEncoding.EncodeToString(c.Tree.Hash[:]))
}

// SignCheckpoint makes the signed note of a checkpoint. What was signed cannot be
// taken back: sign nothing but trees that can never be replaced by another one of
// their size.
func SignCheckpoint(origin string, tree Tree, signers ...note.Signer) ([]byte, error) {
	signed, err := note.Sign(&note.Note{Text: Checkpoint{Origin: origin, Tree: tree}.body()}, signers...)
	if err != nil {
		return nil, fmt.Errorf("couldn't sign the checkpoint: %w", err)
	}
	return signed, nil
}

// OpenCheckpoint reads a signed checkpoint and demands the signature of log. The
// note that it returns also names which of others have signed it.
// CodeDenied: it is not signed by the log, or of another origin. CodeInvalid: it
// is no checkpoint.
func OpenCheckpoint(signed []byte, origin string, log note.Verifier, others ...note.Verifier) (Checkpoint, *note.Note, error) {
	n, err := note.Open(signed, note.VerifierList(append([]note.Verifier{log}, others...)...))
	var unverified *note.UnverifiedNoteError
	var wrong *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified) || errors.As(err, &wrong):
		return Checkpoint{}, nil, gatehouse.Errorf(gatehouse.CodeDenied, "the checkpoint is not signed by the log %s", log.Name()).
			WithHint("is this the log's public key, and this the log?")
	case err != nil:
		return Checkpoint{}, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no signed checkpoint: %w", err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if c.Origin != origin {
		return Checkpoint{}, nil, gatehouse.Errorf(gatehouse.CodeDenied, "the checkpoint is of %q, not of %q", c.Origin, origin)
	}
	for _, s := range n.Sigs {
		if s.Name == log.Name() && s.Hash == log.KeyHash() {
			return c, n, nil
		}
	}
	return Checkpoint{}, nil, gatehouse.Errorf(gatehouse.CodeDenied, "the checkpoint is not signed by the log %s", log.Name())
}

// sizeMax is the largest tree that is believed: more than anyone will ever log,
// and small enough for arithmetic with it.
const sizeMax = 1 << 60

// ParseCheckpoint reads the text of a checkpoint, whose signatures are the
// caller's matter. Errors: CodeInvalid.
func ParseCheckpoint(text string) (Checkpoint, error) {
	bad := func(why string) (Checkpoint, error) {
		return Checkpoint{}, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no checkpoint: %s", why)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 || !strings.HasSuffix(text, "\n") {
		return bad("it has fewer than three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > sizeMax || strconv.FormatInt(size, 10) != lines[1] {
		return bad("its second line is no size")
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != merkle.HashSize || base64.StdEncoding.EncodeToString(root) != lines[2] {
		return bad("its third line is no hash")
	}
	if lines[0] == "" {
		return bad("it has no origin")
	}
	for _, line := range lines[3:] {
		if line == "" {
			return bad("it has an empty line")
		}
	}
	return Checkpoint{Origin: lines[0], Tree: Tree{N: size, Hash: Hash(root)}, Extra: lines[3:]}, nil
}
