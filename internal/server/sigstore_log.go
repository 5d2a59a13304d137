package server

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"log/slog"
	"net/http"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
	"github.com/gatehouse-dev/gatehouse/internal/tlog/witness"
)

// signatureLog is the transparency log of the private Sigstore with its HTTP API.
type signatureLog struct {
	*tlog.Log                 // Run it as long as the server runs
	api       *sigstore.Rekor // Register it
	id        []byte          // that names the log in trusted roots
}

// signatureLogOptions are what [openSignatureLog] needs.
type signatureLogOptions struct {
	origin    string        // the host name of the external URL, without its port: verifiers insist on it
	key       crypto.Signer // Ed25519
	witnesses []witness.Remote
	client    *http.Client          // for witnesses
	api       sigstore.RekorOptions // Log and LogID are set here
	// identify finds the log id of the key that has signed a checkpoint: another
	// replica may have another key already. nil: it is the one above.
	identify func(ctx context.Context, checkpoint []byte) ([]byte, error)
	log      *slog.Logger
}

// openSignatureLog opens the log of an origin. CodeInvalid: the key or the origin
// cannot be one of a log.
func openSignatureLog(ctx context.Context, d *db.DB, o signatureLogOptions) (*signatureLog, error) {
	signer, err := tlog.NewSigner(o.origin, o.key)
	if err != nil {
		return nil, err
	}
	opts := tlog.Options{Log: o.log}
	if len(o.witnesses) > 0 {
		opts.Witnesses = witness.NewCollector(o.client, o.log, o.witnesses...)
	}
	l := &signatureLog{}
	if l.Log, err = tlog.New(ctx, d, o.origin, signer, opts); err != nil {
		return nil, err
	}
	id := tlog.LogID(o.origin, o.key.Public().(ed25519.PublicKey)) // as NewSigner has made sure
	l.id = id[:]
	o.api.Log, o.api.LogID, o.api.Logger = rekorLog{l.Log, o.identify}, l.id, o.log
	l.api, err = sigstore.NewRekor(o.api)
	return l, err
}

// rekorLog is a log in the words of the edge.
type rekorLog struct {
	*tlog.Log
	identify func(ctx context.Context, checkpoint []byte) ([]byte, error)
}

// AddAndWait implements sigstore.Log.
func (l rekorLog) AddAndWait(ctx context.Context, entry []byte) (sigstore.Included, error) {
	in, err := l.Log.AddAndWait(ctx, entry)
	if err != nil {
		return sigstore.Included{}, err
	}
	out := sigstore.Included{Index: in.Index, Size: in.Tree.N, Root: in.Tree.Hash[:], Checkpoint: in.Checkpoint, Again: in.Again}
	for _, h := range in.Proof {
		out.Proof = append(out.Proof, h[:])
	}
	if l.identify != nil {
		out.LogID, err = l.identify(ctx, in.Checkpoint)
	}
	return out, err
}

// Tile implements sigstore.Log.
func (l rekorLog) Tile(ctx context.Context, path string) ([]byte, error) {
	t, err := tlog.ParseTile(path)
	if err != nil {
		return nil, err
	}
	return l.Log.Tile(ctx, t)
}
