package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

const (
	logClients   = 128
	logRounds    = 5
	logRound     = 3 * time.Second
	logEntrySize = 1500 // a hashedrekord with a certificate
	logOrigin    = "log.example"
)

// adder adds one entry that nobody has added, and waits until it is in a signed
// tree.
type adder func(ctx context.Context) error

// logRun is what one round of clients has seen.
type logRun struct {
	perSecond float64
	took      []time.Duration // sorted
}

func (r logRun) at(p float64) time.Duration { return r.took[int(p*float64(len(r.took)-1))] }

// measureLog compares our log on SQLite with Tessera's on files: the same clients,
// the same interval between checkpoints, each entry waited for. Ours also hands
// out the proof of inclusion.
func measureLog(ctx context.Context, b *bench) ([]row, error) {
	ours, overHTTP, stopOurs, err := startOurLog(ctx, filepath.Join(b.work, "tlog"))
	if err != nil {
		return nil, err
	}
	theirs, stopTheirs, err := startTessera(ctx, filepath.Join(b.work, "tessera"))
	if err != nil {
		return nil, errors.Join(err, stopOurs())
	}
	defer func() { err = errors.Join(err, stopOurs(), stopTheirs()) }()
	var runs [3][]logRun
	var ratios []float64
	for round := range logRounds + 1 {
		var now [3]logRun
		order := []int{0, 1, 2}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			if now[i], err = runClients(ctx, []adder{ours, theirs, overHTTP}[i]); err != nil {
				return nil, err
			}
		}
		if round == 0 {
			continue // warms up
		}
		for i := range runs {
			runs[i] = append(runs[i], now[i])
		}
		ratios = append(ratios, now[0].perSecond/now[1].perSecond)
	}
	fsync, err := appendOnce(filepath.Join(b.work, "append"))
	if err != nil {
		return nil, err
	}
	slices.Sort(ratios)
	ratio := ratios[len(ratios)/2]
	show := func(what string, all []logRun) row {
		slices.SortFunc(all, func(a, b logRun) int { return int(a.perSecond - b.perSecond) })
		m := all[len(all)/2]
		return row{what: what, measured: fmt.Sprintf("%.0f entries/s, in the tree after p50 %d ms, p99 %d ms", m.perSecond, m.at(0.5).Milliseconds(), m.at(0.99).Milliseconds())}
	}
	first := show(fmt.Sprintf("transparency log, %d clients, SQLite, beside Tessera", logClients), runs[0])
	ours1 := first
	ours1.what = "— ours"
	first.measured, first.limit, first.missed = fmt.Sprintf("%.2f x", ratio), ">= 1 x", ratio < 1
	return []row{
		first, ours1,
		show("— over HTTP, each with a new signature, made and verified", runs[2]),
		show("— Tessera v1.0.4 on files (POSIX), the same interval", runs[1]),
		{what: "— append and fsync of one such entry, median", measured: fmt.Sprintf("%.1f ms", float64(fsync.Microseconds())/1000)},
	}, nil
}

// runClients runs closed loops for the time of a round.
func runClients(ctx context.Context, add adder) (logRun, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var r logRun
	var failed error
	start := time.Now()
	var wg sync.WaitGroup
	for range logClients {
		wg.Go(func() {
			for time.Since(start) < logRound {
				began := time.Now()
				err := add(ctx)
				took := time.Since(began)
				mu.Lock()
				if err != nil {
					failed = cmpErr(failed, err)
					mu.Unlock()
					cancel()
					return
				}
				r.took = append(r.took, took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return r, failed
	}
	r.perSecond = float64(len(r.took)) / time.Since(start).Seconds()
	slices.Sort(r.took)
	return r, nil
}

func cmpErr(first, next error) error {
	if first != nil {
		return first
	}
	return next
}

func newEntry() []byte {
	entry := make([]byte, logEntrySize)
	rand.Read(entry)
	return entry
}

// startOurLog starts a log as a server has it, and its API.
func startOurLog(ctx context.Context, dir string) (direct, overHTTP adder, stop func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, nil, err
	}
	d, err := db.OpenSQLite(ctx, filepath.Join(dir, "meta.db"), db.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, nil, errors.Join(err, d.Close())
	}
	signer, err := tlog.NewSigner(logOrigin, key)
	if err != nil {
		return nil, nil, nil, errors.Join(err, d.Close())
	}
	l, err := tlog.New(ctx, d, logOrigin, signer, tlog.Options{})
	if err != nil {
		return nil, nil, nil, errors.Join(err, d.Close())
	}
	id := tlog.LogID(logOrigin, pub)
	api, err := sigstore.NewRekor(sigstore.RekorOptions{Log: benchLog{tlog: l}, LogID: id[:], Options: sigstore.Options{PerSecond: 1e6, Burst: 1e6}})
	if err != nil {
		return nil, nil, nil, errors.Join(err, d.Close())
	}
	mux := http.NewServeMux()
	api.Register(mux)
	server := httptest.NewServer(mux)
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- l.Run(running) }()
	stop = func() error {
		server.Close()
		cancel()
		return errors.Join(<-ended, d.Close())
	}
	direct = func(ctx context.Context) error {
		_, err := l.AddAndWait(ctx, newEntry())
		return err
	}
	server.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = logClients
	overHTTP, err = postSignatures(server)
	return direct, overHTTP, stop, err
}

// benchLog is a log in the words of the edge.
type benchLog struct {
	sigstore.Log // nothing is read through it
	tlog         *tlog.Log
}

func (l benchLog) AddAndWait(ctx context.Context, entry []byte) (sigstore.Included, error) {
	in, err := l.tlog.AddAndWait(ctx, entry)
	out := sigstore.Included{Index: in.Index, Size: in.Tree.N, Root: in.Tree.Hash[:], Checkpoint: in.Checkpoint}
	for _, h := range in.Proof {
		out.Proof = append(out.Proof, h[:])
	}
	return out, err
}

// postSignatures signs something new each time and posts it.
func postSignatures(server *httptest.Server) (adder, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	return func(ctx context.Context) error {
		digest := sha256.Sum256(newEntry())
		sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			return err
		}
		body, err := json.Marshal(object{"hashedRekordRequestV002": object{"digest": digest[:], "signature": object{
			"content": sig, "verifier": object{"publicKey": object{"rawBytes": pub}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}}}})
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/api/v2/log/entries", bytes.NewReader(body))
		if err != nil {
			return err
		}
		res, err := server.Client().Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusCreated {
			err = fmt.Errorf("%s %s", res.Status, answer)
		}
		return err
	}, nil
}

// startTessera starts Tessera's log on files, tuned as ours is.
func startTessera(ctx context.Context, dir string) (adder, func() error, error) {
	text, _, err := note.GenerateKey(rand.Reader, logOrigin)
	if err != nil {
		return nil, nil, err
	}
	signer, err := note.NewSigner(text)
	if err != nil {
		return nil, nil, err
	}
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		return nil, nil, err
	}
	opts := tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(256, 100*time.Millisecond).WithCheckpointInterval(100 * time.Millisecond)
	running, cancel := context.WithCancel(ctx)
	appender, shutdown, reader, err := tessera.NewAppender(running, driver, opts)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	await := tessera.NewPublicationAwaiter(running, reader.ReadCheckpoint, 10*time.Millisecond)
	add := func(ctx context.Context) error {
		_, _, err := await.Await(ctx, appender.Add(ctx, tessera.NewEntry(newEntry())))
		return err
	}
	return add, func() error {
		err := shutdown(running)
		cancel()
		return err
	}, nil
}

// appendOnce is the median time to append one entry to a file and to have it on
// the disk: no log that promises anything is faster for one entry.
func appendOnce(path string) (time.Duration, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var took []time.Duration
	for range 101 {
		start := time.Now()
		if _, err := f.Write(newEntry()); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}
