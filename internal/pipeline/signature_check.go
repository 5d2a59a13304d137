package pipeline

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// signatureCheck gathers what became of everything that hangs on one image.
type signatureCheck struct {
	pipeline   *Pipeline
	image      gatehouse.Ref
	asked      bool // somebody is named who could have signed
	artifacts  map[gatehouse.Digest]*artifact
	order      []gatehouse.Digest
	held       map[gatehouse.Digest]bool // marks of signatures that somebody vouches for
	incomplete []string
}

// artifact is a manifest that carries signatures. Several may be in one.
type artifact struct {
	found   []gatehouse.Rejected            // each of its signatures, as nobody's
	valid   map[string]*validSignature      // by predicate and signer
	reasons map[string][]db.SignatureReason // by authority: why some of them do not hold
	names   []string                        // keys of reasons, in order
}

type validSignature struct {
	db.Signature
	count int // how many of the artifact's signatures they are
}

func newSignatureCheck(p *Pipeline, image gatehouse.Ref) *signatureCheck {
	return &signatureCheck{pipeline: p, image: image, artifacts: map[gatehouse.Digest]*artifact{}, held: map[gatehouse.Digest]bool{}}
}

// run asks for nobody's signatures first, which finds all that there are and what
// is wrong with them whoever made them, and then for those of each signer.
func (c *signatureCheck) run(ctx context.Context, signers []Signer) error {
	nobody, err := c.pipeline.nobody()
	if err != nil {
		return err
	}
	_, rejected, err := c.verify(ctx, nobody)
	if err != nil {
		return err
	}
	for _, r := range rejected {
		if a := c.artifact(r.Artifact); a != nil {
			a.found = append(a.found, r)
		} else if r.Code != verify.CodeNoCandidate {
			c.note(r.Message)
		}
	}
	if len(c.order) == 0 {
		return nil
	}
	c.asked = len(signers) > 0
	if len(signers) > signersMax {
		c.note(fmt.Sprintf("the policies name %d signers; it was compared with the first %d", len(signers), signersMax))
		signers = signers[:signersMax]
	}
	for _, s := range signers {
		evidence, rejected, err := c.verify(ctx, s.Authority)
		if err != nil {
			return err
		}
		c.hold(s.Name, evidence)
		c.refuse(s.Name, rejected)
	}
	return nil
}

// verify asks for signatures and attestations of any type.
func (c *signatureCheck) verify(ctx context.Context, authority gatehouse.Authority) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	authority.AnyAttestation, authority.Sources = true, nil
	return c.pipeline.signing.Verify(ctx, c.pipeline.registry, c.image, gatehouse.Need{Name: "arrival", Kind: gatehouse.NeedSignature, Authority: authority})
}

func (c *signatureCheck) note(text string) {
	const notesMax = 10
	if len(c.incomplete) < notesMax && !slices.Contains(c.incomplete, text) {
		c.incomplete = append(c.incomplete, text)
	}
}

func (c *signatureCheck) artifact(digest gatehouse.Digest) *artifact {
	if digest == "" {
		return nil
	}
	a := c.artifacts[digest]
	if a == nil {
		a = &artifact{valid: map[string]*validSignature{}, reasons: map[string][]db.SignatureReason{}}
		c.artifacts[digest] = a
		c.order = append(c.order, digest)
	}
	return a
}

// hold notes what an authority vouches for.
func (c *signatureCheck) hold(name string, evidence []gatehouse.Evidence) {
	count := map[*validSignature]int{}
	for _, e := range evidence {
		a := c.artifact(e.Artifact)
		if a == nil {
			continue
		}
		c.held[e.Mark] = true
		signer, predicate := storable(SignerName(e.Identity)), storable(e.Predicate)
		v := a.valid[predicate+"\n"+signer]
		if v == nil {
			v = &validSignature{Signature: db.Signature{
				Artifact: e.Artifact, Predicate: predicate, Signer: signer, Status: db.SignatureValid, Format: e.Format,
				SignedAt: e.SignedAt, ExpiresAt: e.ExpiresAt, SignatureDetail: db.SignatureDetail{Identity: e.Identity, Log: e.Log},
			}}
			a.valid[predicate+"\n"+signer] = v
		}
		if !slices.Contains(v.Authorities, name) {
			v.Authorities = append(v.Authorities, name)
		}
		count[v]++
	}
	for v, n := range count {
		v.count = max(v.count, n)
	}
}

// storable is text that a signer has chosen as a database can hold and index it:
// PostgreSQL refuses zero bytes, and long keys. What two texts have in common then
// is told as one.
func storable(s string) string {
	const storableMax = 500
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) > storableMax {
		s = strings.ToValidUTF8(s[:storableMax], "") + "…" + gatehouse.DigestOf([]byte(s)).Short()
	}
	return s
}

const reasonsMax = 10 // of one artifact and authority, and of one signature in all

func (c *signatureCheck) refuse(name string, rejected []gatehouse.Rejected) {
	for _, r := range rejected {
		a := c.artifact(r.Artifact)
		if a == nil {
			continue
		}
		if a.reasons[name] == nil {
			a.names = append(a.names, name)
		}
		reason := db.SignatureReason{Authority: name, Code: r.Code, Message: r.Message}
		if list := a.reasons[name]; len(list) < reasonsMax && !slices.Contains(list, reason) {
			a.reasons[name] = append(list, reason)
		}
	}
}

// SignerName tells signers apart, and people who they are.
func SignerName(id gatehouse.Identity) string {
	if id.Subject != "" || id.Issuer != "" {
		return fmt.Sprintf("%s (%s)", cmp.Or(id.Subject, "?"), cmp.Or(id.Issuer, "?"))
	}
	return "key " + string(id.Key)
}

// result lists the signatures. What an artifact carries beside those that are valid
// is listed as one. A signature that is valid where an artifact before carried it, is
// so in this one.
func (c *signatureCheck) result() (list []db.Signature, incomplete []string) {
	for _, digest := range c.order {
		a := c.artifacts[digest]
		for _, v := range a.valid {
			v.Count = v.count
			list = append(list, v.Signature)
		}
		a.found = slices.DeleteFunc(a.found, func(r gatehouse.Rejected) bool { return r.Mark != "" && c.held[r.Mark] })
		if len(a.found) > 0 {
			s := c.invalid(digest, a)
			s.Count = len(a.found)
			list = append(list, s)
		}
	}
	list, dropped := keepSignatures(list)
	if dropped > 0 {
		c.note(fmt.Sprintf("%d more are attached than are kept", dropped))
	}
	return list, c.incomplete
}

// invalid describes what of an artifact is nobody's, or broken.
func (c *signatureCheck) invalid(digest gatehouse.Digest, a *artifact) db.Signature {
	s := db.Signature{Artifact: digest, Status: db.SignatureUnjudged, Format: a.found[0].Format}
	if c.asked {
		s.Status = db.SignatureUntrusted
	}
	for _, r := range a.found {
		if !unknown(r.Code) {
			s.Status, s.Format = db.SignatureBroken, r.Format
			if len(s.Reasons) < reasonsMax {
				s.Reasons = append(s.Reasons, db.SignatureReason{Code: r.Code, Message: r.Message})
			}
		}
	}
	if s.Status != db.SignatureUntrusted {
		return s
	}
	for _, name := range a.names {
		s.Reasons = append(s.Reasons, a.reasons[name]...)
	}
	if slices.ContainsFunc(s.Reasons, func(r db.SignatureReason) bool { return broken(r.Code) }) {
		s.Status = db.SignatureBroken
	}
	// What says most comes first: of another authority's key everybody's is another.
	slices.SortStableFunc(s.Reasons, func(a, b db.SignatureReason) int { return saying(a.Code) - saying(b.Code) })
	s.Reasons = s.Reasons[:min(len(s.Reasons), reasonsMax)]
	return s
}

func saying(code string) int {
	switch {
	case broken(code):
		return 0
	case unknown(code):
		return 2
	}
	return 1
}

// unknown are the codes that nobody's key gives to a signature of which nothing is
// wrong but that nobody knows whose it is.
func unknown(code string) bool {
	switch code {
	case verify.CodeWrongKey, verify.CodeNotASignature, verify.CodeOtherPredict, verify.CodeOtherFormat, verify.CodeUnsupported:
		return true
	}
	return false
}

// broken are the codes that an authority gives to a signature which says that it is
// by somebody whom the authority trusts, and proves that it is not.
func broken(code string) bool {
	switch code {
	case verify.CodeBadSignature, verify.CodeExpired, verify.CodeClockSkew, verify.CodeBadTimestamp, verify.CodeBadSCT,
		verify.CodeLogMismatch, verify.CodeBadLogPromise, verify.CodeBadLogProof:
		return true
	}
	return false
}

// nobody is an authority that trusts a key which nobody has.
func (p *Pipeline) nobody() (gatehouse.Authority, error) {
	p.nobodyOnce.Do(func() {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			p.nobodyErr = err
			return
		}
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		p.nobodyErr = err
		p.nobodyKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	})
	return gatehouse.Authority{Name: "nobody", Keys: []string{p.nobodyKey}}, p.nobodyErr
}
