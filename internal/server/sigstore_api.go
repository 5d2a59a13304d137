package server

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tuf"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
)

// certifier is the authority in force, in the words of the edge.
type certifier struct{ *privateSigstore }

// Issue implements sigstore.Authority.
func (c certifier) Issue(ctx context.Context, token string, key, proof, csr []byte) ([][]byte, error) {
	return c.services.Load().authority.Issue(ctx, token, key, proof, csr)
}

// Chains implements sigstore.Authority.
func (c certifier) Chains(context.Context) (out [][][]byte, err error) {
	for _, k := range c.services.Load().keys.All(keyring.CA) {
		var chain [][]byte
		for _, cert := range k.Chain {
			chain = append(chain, cert.Raw)
		}
		out = append(out, chain)
	}
	return out, nil
}

// Issuers implements sigstore.Authority.
func (c certifier) Issuers() (out []sigstore.Issuer) {
	for _, i := range c.tokens.Issuers() {
		claim := "sub"
		if i.Kind == oidc.Email {
			claim = "email"
		}
		out = append(out, sigstore.Issuer{URL: i.URL, Kind: i.Kind, Audience: i.Audience, ChallengeClaim: claim, Domain: i.Domain})
	}
	return out
}

// stamper is the timestamp authority in force.
type stamper struct{ *privateSigstore }

// Respond implements sigstore.Stamper.
func (s stamper) Respond(request []byte) ([]byte, string, error) {
	return s.services.Load().stamper.Respond(request)
}

// RespondHash implements sigstore.Stamper.
func (s stamper) RespondHash(algorithm crypto.Hash, hash []byte, nonce *big.Int, certificates bool) ([]byte, string, error) {
	return s.services.Load().stamper.RespondHash(algorithm, hash, nonce, certificates)
}

// CertChain implements sigstore.Stamper.
func (s stamper) CertChain() [][]byte { return s.services.Load().stamper.CertChain() }

// SigstoreInfo is what GET /api/v1/sigstore tells: everything that clients need,
// and nothing that is secret.
type SigstoreInfo struct {
	URL     string    `json:"url"`
	Mirror  string    `json:"mirror"`
	Root    string    `json:"root"` // root.json, as text
	Version int64     `json:"rootVersion"`
	Expires time.Time `json:"metadataExpire"`
	// Sealed tells administrators what opens the keys, and others of which kind that
	// is: references of keys name accounts and places.
	Sealed  string           `json:"sealedWith"`
	Issuers []SigstoreIssuer `json:"issuers"`
	Keys    []SigstoreKey    `json:"keys"`
}

// SigstoreIssuer is an issuer whose tokens get certificates.
type SigstoreIssuer struct {
	URL      string `json:"url"`
	Kind     string `json:"kind"`
	Audience string `json:"audience"`
}

// SigstoreKey is one of the keys of a private Sigstore.
type SigstoreKey struct {
	Kind   string    `json:"kind"`
	SHA256 string    `json:"sha256"` // of the public key
	From   time.Time `json:"from"`
	Until  time.Time `json:"until,omitzero"` // absent: in force
	// Ends is when its certificate does.
	Ends time.Time `json:"certificateEnds,omitzero"`
}

// kindOfSealer is what everybody may know of what seals the keys.
func kindOfSealer(name string) string {
	if name == keyring.PassphraseName {
		return name
	}
	if scheme, _, ok := strings.Cut(name, "://"); ok {
		return scheme + "://"
	}
	return "a key"
}

// Show implements api.Sigstore.
func (p *privateSigstore) Show(ctx context.Context, actor gatehouse.Actor) (any, error) {
	store := sigstoreKeys{p.db, sigstoreActor}
	_, files, err := store.files(ctx)
	if err != nil {
		return nil, err
	}
	state, err := store.Load(ctx)
	if err != nil {
		return nil, err
	}
	root, version := tuf.NewestRoot(files)
	expires, err := tuf.Ends(files)
	if err != nil {
		return nil, err
	}
	doc := SigstoreInfo{
		URL: p.at, Mirror: p.at + sigstore.TUFPath, Root: string(root), Version: version, Expires: expires, Sealed: kindOfSealer(state.Sealer),
		Issuers: []SigstoreIssuer{}, Keys: []SigstoreKey{},
	}
	if actor.Admin {
		doc.Sealed = state.Sealer
	}
	for _, i := range p.tokens.Issuers() {
		doc.Issuers = append(doc.Issuers, SigstoreIssuer{i.URL, i.Kind, i.Audience})
	}
	keys := p.services.Load().keys
	for _, kind := range []string{keyring.CA, keyring.CT, keyring.Log, keyring.TSA, keyring.TUFRoot, keyring.TUFTargets, keyring.TUFOnline} {
		for _, k := range keys.All(kind) {
			sum := sha256.Sum256(k.PKIX())
			out := SigstoreKey{Kind: kind, SHA256: hex.EncodeToString(sum[:]), From: k.From.UTC()}
			if !k.Until.IsZero() {
				out.Until = k.Until.UTC()
			}
			if len(k.Chain) > 0 {
				out.Ends = k.Chain[0].NotAfter
			}
			doc.Keys = append(doc.Keys, out)
		}
	}
	return doc, nil
}

// Rotate implements api.Sigstore.
func (p *privateSigstore) Rotate(ctx context.Context, actor gatehouse.Actor, parts []string, atOnce bool) (any, error) {
	if len(parts) == 0 || slices.Contains(parts, "") {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "nothing is named that should get new keys").WithHint("parts are ca, ct, log, tsa and tuf")
	}
	overlap := keyring.Overlap
	if atOnce {
		overlap = 0
	}
	if _, err := p.ring.With(sigstoreKeys{p.db, actor}).Rotate(ctx, p.at, overlap, parts...); err != nil {
		return nil, err
	}
	if err := p.follow(ctx); err != nil {
		return nil, err
	}
	p.Server.log.InfoContext(ctx, "sigstore rotated", "actor", actor.Name, "parts", parts, "atOnce", atOnce)
	return p.Show(ctx, actor)
}

// figures are those of the log and of what comes to an end.
func (p *privateSigstore) figures(ctx context.Context, add func(*prometheus.Desc, float64, ...string)) {
	services := p.services.Load()
	if stats, err := services.log.Stats(ctx); err == nil {
		add(descLogSize, float64(stats.Size))
		add(descLogWaiting, float64(stats.Waiting))
		add(descLogOut, seconds(stats.PublishedAt))
	}
	if _, files, err := (sigstoreKeys{p.db, sigstoreActor}).files(ctx); err == nil {
		if ends, err := tuf.Ends(files); err == nil {
			add(descTrustEnds, seconds(ends))
		}
	}
	add(descCAEnds, seconds(services.keys.Ends()))
}
