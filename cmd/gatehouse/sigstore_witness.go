package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
	"github.com/gatehouse-dev/gatehouse/internal/tlog/witness"
)

// witnessFlags are those of sigstore witness.
type witnessFlags struct {
	sigstoreQuery
	state, keyFile, name, listen string
	interval                     time.Duration
	once                         bool
}

func (a *app) sigstoreWitnessCmd() *cobra.Command {
	var f witnessFlags
	cmd := &cobra.Command{
		Use:   "witness",
		Short: "watch a log from another machine, and cosign what is consistent",
		Long: `Follows a log: reads its checkpoint now and then, proves from its tiles that it
goes on from the last one, and remembers it in --state. The first checkpoint that
does not ends the command with exit code 1; both signed checkpoints are kept there,
and together prove to anybody that the log was rewritten.

With --listen it also answers the log itself (c2sp.org/tlog-witness): the server's
setting sigstore-witnesses names it, and every checkpoint comes out cosigned. The
witness makes its key with its first start, and prints the public half. Give it a
machine of its own, and never an older copy of its state.

Before each look it reads the files of --log-key and --trusted-root again, so that it
goes on with a log that has got a new key once that is in one of them.`,
		Example: `  gatehouse sigstore witness --log https://registry.example/log --log-key log.key --state /var/lib/witness
  gatehouse sigstore witness --once --log-key log.key --state ./state
  gatehouse sigstore witness --log-key log.key --state ./state --listen 0.0.0.0:8080 --name witness.example/w1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sigstoreWitness(cmd.Context(), f) },
	}
	f.bind(cmd)
	cmd.Flags().StringVar(&f.state, "state", "", "directory of the witness's memory (required)")
	cmd.Flags().StringVar(&f.listen, "listen", "", "answer add-checkpoint at this address")
	cmd.Flags().StringVar(&f.name, "name", "", "name of the witness in its signatures, a URL without its scheme")
	cmd.Flags().StringVar(&f.keyFile, "key", "", "private key of the witness, made if there is none (default: witness.key in --state)")
	cmd.Flags().DurationVar(&f.interval, "interval", 30*time.Second, "how often the log is read")
	cmd.Flags().BoolVar(&f.once, "once", false, "read the log once and end")
	return cmd
}

func (f *witnessFlags) check() error {
	switch {
	case f.state == "":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--state is missing").WithHint("name a directory of the witness's own: what it remembers is all that it is worth")
	case f.listen != "" && f.name == "":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--name is missing").WithHint("a witness that cosigns needs a name, as witness.example/w1")
	case f.listen != "" && f.once:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--once and --listen exclude each other")
	case f.interval <= 0:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--interval must be more than nothing")
	}
	return nil
}

func (a *app) sigstoreWitness(ctx context.Context, f witnessFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(f.state, 0o700); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't make %s: %w", f.state, err)
	}
	unlock, taken, err := tryLock(filepath.Join(f.state, "lock"))
	if err != nil || !taken {
		return gatehouse.Errorf(gatehouse.CodeConflict, "another witness uses %s", f.state).WithHint("give each its own directory")
	}
	defer unlock()
	signer, err := a.witnessKey(f)
	if err != nil {
		return err
	}
	from, _, key, _, err := a.openLog(ctx, f.sigstoreQuery)
	if err != nil {
		return err
	}
	w, err := witness.New(f.state, signer, key)
	if err != nil {
		return err
	}
	if f.listen != "" {
		stop, err := a.serveWitness(w, f.listen)
		if err != nil {
			return err
		}
		defer stop()
	}
	return a.follow(ctx, w, from, key.Name(), f)
}

// follow reads the log until ctx ends or it contradicts itself.
func (a *app) follow(ctx context.Context, w *witness.Witness, from tlog.Source, origin string, f witnessFlags) error {
	for {
		if err := a.learn(w, origin, f.sigstoreQuery); err != nil {
			fmt.Fprintf(a.stderr, "warning: the keys of the log stay what they were: %v\n", err)
		}
		seen, err := w.Follow(ctx, from, origin)
		var no *witness.Refusal
		var proof *witness.Contradiction
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &no) && no.Status == http.StatusConflict:
			// The log itself has brought a newer one meanwhile.
		case errors.As(err, &proof):
			message := "the log is not consistent: " + err.Error()
			if hint := gatehouse.HintOf(err); hint != "" {
				message += " (" + hint + ")"
			}
			return answerNo{code: 1, message: message}
		case err != nil && f.once:
			return err
		case err != nil:
			fmt.Fprintf(a.stderr, "warning: %v\n", err)
		case seen.First:
			fmt.Fprintf(a.stdout, "%s: %d entries, seen for the first time\n", origin, seen.Now.Tree.N)
		case seen.Now.Tree.N != seen.Before.Tree.N || f.once:
			fmt.Fprintf(a.stdout, "%s: %d entries, consistent with %d before\n", origin, seen.Now.Tree.N, seen.Before.Tree.N)
		}
		if f.once {
			return nil
		}
		pause := time.NewTimer(f.interval)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// learn has the witness know the keys that the flags name now: a file may have got
// another one since, and one may have ended.
func (a *app) learn(w *witness.Witness, origin string, q sigstoreQuery) error {
	keys, err := a.logKeys(q)
	if err != nil {
		return err
	}
	var known []note.Verifier
	var errs []error
	for _, k := range keys {
		v, err := k.verifier([]byte(origin + "\n"))
		if err == nil && v.Name() == origin {
			known = append(known, v)
		}
		errs = append(errs, err)
	}
	if len(known) == 0 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "none of them is one of %s: %w", origin, errors.Join(errs...))
	}
	w.Know(known...)
	return nil
}

// Limits of the witness's server.
const (
	witnessTimeout = 10 * time.Second
	witnessHeader  = 16 << 10
)

func (a *app) serveWitness(w *witness.Witness, addr string) (stop func(), err error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't listen at %s: %w", addr, err)
	}
	server := &http.Server{
		Handler:     w.Handler(slog.New(slog.NewTextHandler(a.stderr, nil))),
		ReadTimeout: witnessTimeout, WriteTimeout: witnessTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: witnessHeader,
	}
	fmt.Fprintf(a.stdout, "listening at http://%s\n", listener.Addr())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until it is shut down
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), witnessTimeout)
		defer cancel()
		_ = server.Shutdown(ctx) // what is not answered by then is asked again
		<-ended
	}, nil
}

// witnessKey returns the key of a witness that cosigns; nil for one that only
// watches.
func (a *app) witnessKey(f witnessFlags) (note.Signer, error) {
	if f.name == "" {
		return nil, nil
	}
	path := f.keyFile
	if path == "" {
		path = filepath.Join(f.state, "witness.key")
	}
	text, err := readBounded(path, logKeyFileMax)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = newWitnessKey(path)
	}
	if err != nil {
		return nil, err
	}
	var parsed any
	if block, _ := pem.Decode(text); block != nil {
		parsed, _ = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds no Ed25519 private key", path).WithHint("it is PEM with PKCS #8; without the file a new key is made")
	}
	s, err := tlog.NewCosigner(f.name, key, time.Now)
	if err == nil {
		fmt.Fprintf(a.stdout, "witness key %s\n", tlog.CosignerKey(f.name, key.Public().(ed25519.PublicKey)))
	}
	return s, err
}

// newWitnessKey makes a key that only its owner can read.
func newWitnessKey(path string) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the key: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the key: %w", err)
	}
	return text, nil
}
