package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

const (
	path     = "/add-checkpoint"
	sizeType = "text/x.tlog.size"

	proofMax  = 63       // lines, by tlog-witness
	bodyMax   = 64 << 10 // bytes of a request
	answerMax = 16 << 10 // bytes of an answer
)

// Handler answers add-checkpoint of tlog-witness.
func (w *Witness) Handler(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, bodyMax))
		if err != nil {
			http.Error(rw, fmt.Sprintf("the request has more than %d bytes, or breaks off", bodyMax), http.StatusBadRequest)
			return
		}
		old, proof, signed, err := parseRequest(body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		line, err := w.Update(old, proof, signed)
		var no *Refusal
		switch {
		case errors.As(err, &no) && no.Status == http.StatusConflict:
			log.WarnContext(r.Context(), "checkpoint refused", "err", err)
			rw.Header().Set("Content-Type", sizeType)
			rw.WriteHeader(no.Status)
			fmt.Fprintf(rw, "%d\n", no.Size)
		case errors.As(err, &no):
			log.WarnContext(r.Context(), "checkpoint refused", "err", err)
			http.Error(rw, no.Error(), no.Status)
		case err != nil:
			log.ErrorContext(r.Context(), "checkpoint failed", "err", err)
			http.Error(rw, "the witness cannot answer now", http.StatusInternalServerError)
		default:
			rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = rw.Write(line)
		}
	})
	return mux
}

// parseRequest reads the body of add-checkpoint.
func parseRequest(body []byte) (old int64, proof []tlog.Hash, signed []byte, err error) {
	bad := func(why string) (int64, []tlog.Hash, []byte, error) {
		return 0, nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no add-checkpoint request: %s", why)
	}
	head, signed, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return bad("it has no empty line")
	}
	lines := strings.Split(string(head), "\n")
	size, ok := strings.CutPrefix(lines[0], "old ")
	if old, err = strconv.ParseInt(size, 10, 64); !ok || err != nil || old < 0 || strconv.FormatInt(old, 10) != size {
		return bad("its first line is not the old size")
	}
	if len(lines)-1 > proofMax {
		return bad("its proof is too long")
	}
	for _, line := range lines[1:] {
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != len(tlog.Hash{}) || base64.StdEncoding.EncodeToString(raw) != line {
			return bad("a line of its proof is no hash")
		}
		proof = append(proof, tlog.Hash(raw))
	}
	return old, proof, signed, nil
}

func writeRequest(old int64, proof []tlog.Hash, signed []byte) []byte {
	b := fmt.Appendf(nil, "old %d\n", old)
	for _, h := range proof {
		b = append(base64.StdEncoding.AppendEncode(b, h[:]), '\n')
	}
	return append(append(b, '\n'), signed...)
}

// Remote is a witness somewhere else.
type Remote struct {
	URL string // add-checkpoint is below it
	Key note.Verifier
}

// ParseRemote reads "KEY URL", the public key of a witness and where it is.
// Errors: CodeInvalid.
func ParseRemote(text string) (Remote, error) {
	key, url, ok := strings.Cut(strings.TrimSpace(text), " ")
	if url = strings.TrimSpace(url); !ok || !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
		return Remote{}, gatehouse.Errorf(gatehouse.CodeInvalid, "a witness is written as KEY URL, and this is %q", text).
			WithHint("gatehouse sigstore witness prints its key when it starts")
	}
	v, err := tlog.ParseVerifier(key)
	return Remote{URL: url, Key: v}, err
}

// Collector asks witnesses to cosign. It is safe for concurrent use.
type Collector struct {
	// Timeout is how long a checkpoint waits for witnesses, 2 s by default.
	Timeout time.Duration
	// Rest is how long one that did not answer is left alone, 30 s by default.
	Rest time.Duration

	client  *http.Client
	log     *slog.Logger
	remotes []*remote
}

type remote struct {
	Remote
	mu    sync.Mutex
	size  int64     // guarded by mu: of the last checkpoint it has accepted, as far as is known here
	until time.Time // guarded by mu: is left alone
}

// NewCollector makes a collector. Errors: none of its methods; they are logged,
// since a log does not stand still for its witnesses.
func NewCollector(client *http.Client, log *slog.Logger, remotes ...Remote) *Collector {
	c := &Collector{Timeout: 2 * time.Second, Rest: 30 * time.Second, client: client, log: log}
	for _, r := range remotes {
		c.remotes = append(c.remotes, &remote{Remote: r})
	}
	return c
}

// Cosign implements tlog.Witnesses.
func (c *Collector) Cosign(ctx context.Context, signed []byte, prove func(context.Context, int64) ([]tlog.Hash, error)) []byte {
	ctx, stop := context.WithTimeout(ctx, c.Timeout)
	defer stop()
	lines := make([][]byte, len(c.remotes))
	var wg sync.WaitGroup
	for i, r := range c.remotes {
		wg.Go(func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if time.Now().Before(r.until) {
				return
			}
			var err error
			if lines[i], err = c.ask(ctx, r, signed, prove); err != nil {
				r.until = time.Now().Add(c.Rest)
				c.log.WarnContext(ctx, "witness ask failed", "witness", r.Key.Name(), "err", err)
			}
		})
	}
	wg.Wait()
	return bytes.Join(lines, nil)
}

// ask asks one witness, again where it says that it knows another checkpoint.
func (c *Collector) ask(ctx context.Context, r *remote, signed []byte, prove func(context.Context, int64) ([]tlog.Hash, error)) ([]byte, error) {
	text, _, _ := strings.Cut(string(signed), "\n\n")
	checkpoint, err := tlog.ParseCheckpoint(text + "\n")
	if err != nil {
		return nil, err
	}
	for range 2 {
		if r.size > checkpoint.Tree.N {
			size := r.size
			r.size = 0
			return nil, gatehouse.Errorf(gatehouse.CodeConflict, "it has seen a tree of %d entries, and this one has %d", size, checkpoint.Tree.N).
				WithHint("was the database put back to an earlier state?")
		}
		proof, err := prove(ctx, r.size)
		if err != nil {
			return nil, err
		}
		line, size, err := c.post(ctx, r, writeRequest(r.size, proof, signed))
		switch {
		case err != nil:
			return nil, err
		case line != nil:
			if line, err = verified(signed, line, r.Key); err == nil {
				r.size = checkpoint.Tree.N
			}
			return line, err
		case size == r.size:
			return nil, gatehouse.Errorf(gatehouse.CodeConflict, "it has seen another tree of %d entries", size).
				WithHint("was the database put back to an earlier state?")
		}
		r.size = size
	}
	return nil, gatehouse.Errorf(gatehouse.CodeConflict, "it does not stay with the size of %d entries that it has answered", r.size)
}

// post sends a request. line is the answer of a witness that cosigns, size that of
// one that knows another checkpoint.
func (c *Collector) post(ctx context.Context, r *remote, body []byte) (line []byte, size int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(r.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	res, err := c.client.Do(req)
	if err != nil {
		return nil, 0, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't reach it: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return nil, 0, gatehouse.Errorf(gatehouse.CodeUnavailable, "its answer broke off: %w", err)
	}
	switch res.StatusCode {
	case http.StatusOK:
		return answer, 0, nil
	case http.StatusConflict:
		size, err := strconv.ParseInt(strings.TrimSuffix(string(answer), "\n"), 10, 64)
		if err != nil || size < 0 {
			return nil, 0, gatehouse.Errorf(gatehouse.CodeUnavailable, "its answer is no size")
		}
		return nil, size, nil
	}
	return nil, 0, gatehouse.Errorf(gatehouse.CodeUnavailable, "it answered %s", res.Status)
}

// verified returns those of the lines that are signatures of a checkpoint by key.
func verified(signed, lines []byte, key note.Verifier) ([]byte, error) {
	text, _, _ := bytes.Cut(signed, []byte("\n\n"))
	n, err := note.Open(append(append(bytes.Clone(text), "\n\n"...), lines...), note.VerifierList(key))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "its answer is not signed with its key: %w", err)
	}
	var out []byte
	for _, s := range n.Sigs {
		out = fmt.Appendf(out, "— %s %s\n", s.Name, s.Base64)
	}
	return out, nil
}
