package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// Signer is somebody whose word some policy takes for an image.
type Signer struct {
	Name      string // POLICY/AUTHORITY
	Authority gatehouse.Authority
}

// Signers says whose signatures count for images of one name.
type Signers struct {
	List     []Signer
	Policies gatehouse.Digest // the set that names them
	Version  int64            // as of [db.Tx.PolicyVersion], read before the set
}

// SignatureOptions are what signatures are checked with.
type SignatureOptions struct {
	// Of says whose signatures of a manifest count, by the policies in force. Nil:
	// nobody's.
	Of func(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (Signers, error)
	// InForce names the policy set in force. Nil: there is none.
	InForce func(ctx context.Context) (gatehouse.Digest, error)
	// Verify checks what hangs on an image against one authority. Nil: nothing is
	// looked at.
	Verify func(ctx context.Context, src verify.Source, image gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error)
}

const (
	signersMax    = 200 // authorities that one image's signatures are compared with
	signaturesMax = 200 // signatures that are kept per image, valid ones first
	changedMax    = 20  // how often a check starts over because something was attached meanwhile
	recheckPage   = 100 // manifests that are looked for at once when policies change
)

type signatureJob struct {
	Repo   gatehouse.Repo   `json:"repo"`
	Digest gatehouse.Digest `json:"digest"`
}

// Attached adds the check of what hangs on a manifest, in the transaction that
// changes that.
func Attached(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, subject gatehouse.Digest) error {
	payload, err := json.Marshal(signatureJob{repo, subject})
	if err != nil {
		return err
	}
	_, err = tx.AddJob(ctx, JobSignature, string(repo)+"@"+string(subject), payload, tx.Now())
	return err
}

// documents are media types of layers that hold no signature, as the bills of
// materials that are attached to every image.
var documents = append(gatehouse.NeedSBOM.MediaTypes(), gatehouse.NeedVEX.MediaTypes()...)

// MaySign reports whether a manifest may carry signatures of what it refers to:
// whatever is not just documents.
func MaySign(m *gatehouse.Manifest) bool {
	var parsed imageManifest
	return json.Unmarshal(m.Body, &parsed) != nil || len(parsed.Layers) == 0 ||
		slices.ContainsFunc(parsed.Layers, func(d gatehouse.Descriptor) bool { return !slices.Contains(documents, d.MediaType) })
}

// PoliciesChanged has all signatures checked again whose signers were named by
// other policies, in the transaction that changes those.
func PoliciesChanged(ctx context.Context, tx *db.Tx) error {
	_, err := tx.AddJob(ctx, JobSigners, "all", nil, tx.Now())
	return err
}

// onSignature checks what hangs on one manifest.
func (p *Pipeline) onSignature(ctx context.Context, work *job.Job) error {
	var j signatureJob
	if err := json.Unmarshal(work.Payload, &j); err != nil {
		return job.Permanent(err)
	}
	return p.CheckSignatures(ctx, j.Repo, j.Digest)
}

// onSigners checks signatures again that were checked by other policies. Where that
// is broken off it goes on with those that are left. One that cannot be checked now
// does not keep the others from it.
func (p *Pipeline) onSigners(ctx context.Context, _ *job.Job) error {
	if p.signing.InForce == nil {
		return nil
	}
	policies, err := p.signing.InForce(ctx)
	if err != nil {
		return err
	}
	failed := 0
	var last error
	var after db.Place
	for {
		var list []db.Place
		err := p.db.Get(ctx, func(tx *db.Tx) (err error) {
			list, err = tx.StaleSignatures(ctx, policies, after, recheckPage)
			return err
		})
		if err != nil {
			return err
		}
		for _, after = range list {
			if err := p.CheckSignatures(ctx, after.Repo, after.Digest); err != nil {
				failed, last = failed+1, err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if len(list) == recheckPage {
			continue
		}
		if failed > 0 {
			return fmt.Errorf("%d images could not be checked, the last one: %w", failed, last)
		}
		return nil
	}
}

func (p *Pipeline) signersOf(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (Signers, error) {
	if p.signing.Of == nil {
		return Signers{}, nil
	}
	return p.signing.Of(ctx, repo, digest)
}

// CheckSignatures verifies everything that hangs on a manifest against every
// signer that the policies in force name for it, and stores what came of it:
// valid signatures with their signers, those by nobody known, and broken ones.
// What has changed is told by events. It may run anywhere and as often as one
// likes; a manifest that is gone is no error.
func (p *Pipeline) CheckSignatures(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (err error) {
	defer wrap(&err, "check the signatures of %s@%s", repo, digest)
	if p.signing.Verify == nil {
		return nil
	}
	for range changedMax {
		current, err := p.checkOnce(ctx, repo, digest)
		if err != nil || current {
			return err
		}
		if _, err := p.content.Manifest(ctx, repo, digest); gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			return nil
		}
	}
	return gatehouse.Errorf(gatehouse.CodeConflict, "something was attached to it each time that it was looked at")
}

func (p *Pipeline) checkOnce(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (current bool, err error) {
	version := ""
	err = p.db.Get(ctx, func(tx *db.Tx) (err error) {
		version, err = tx.AttachedVersion(ctx, repo, digest)
		return err
	})
	if err != nil || version == "" { // nothing was ever attached
		return version == "", err
	}
	m, err := p.content.Manifest(ctx, repo, digest)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return true, nil // it comes later, or never
	}
	if err != nil {
		return false, err
	}
	signers, err := p.signersOf(ctx, repo, digest)
	if err != nil {
		return false, err
	}
	c := newSignatureCheck(p, gatehouse.Ref{Registry: "localhost", Repo: repo, Digest: m.Digest})
	if err := c.run(ctx, signers.List); err != nil {
		return false, err
	}
	list, incomplete := c.result()
	err = p.db.Write(ctx, func(tx *db.Tx) error {
		now, err := tx.PolicyVersion(ctx)
		if err != nil || now != signers.Version {
			current = false
			return err
		}
		var changed []db.Signature
		check := db.SignatureCheck{Policies: signers.Policies, Incomplete: incomplete}
		if changed, current, err = tx.SaveSignatures(ctx, repo, digest, version, check, list); err != nil {
			return err
		}
		return tx.AddEvents(ctx, signatureEvents(repo, digest, changed)...)
	})
	return current, err
}

// SignatureEvent is the payload of signature.added and signature.invalid.
type SignatureEvent struct {
	Artifact    gatehouse.Digest     `json:"artifact"` // the manifest that carries it
	Format      string               `json:"format"`
	Predicate   string               `json:"predicate,omitempty"`
	Signer      string               `json:"signer"` // "unknown signer" where nobody is known
	Authorities []string             `json:"authorities,omitempty"`
	Reasons     []db.SignatureReason `json:"reasons,omitempty"`
}

// UnknownSigner stands for whoever made a signature that nobody who is known made.
const UnknownSigner = "unknown signer"

// signatureEvents tells of new and changed signatures. One that cannot be compared
// with anybody is no news, good or bad.
func signatureEvents(repo gatehouse.Repo, subject gatehouse.Digest, changed []db.Signature) (out []gatehouse.Event) {
	for _, s := range changed {
		if s.Status == db.SignatureUnjudged {
			continue
		}
		e := gatehouse.Event{Type: gatehouse.EventSignatureInvalid, Actor: gatehouse.System("pipeline").Name, Repo: repo, Digest: subject}
		if s.Status == db.SignatureValid {
			e.Type = gatehouse.EventSignatureAdded
		}
		payload, err := json.Marshal(SignatureEvent{
			Artifact: s.Artifact, Format: s.Format, Predicate: s.Predicate, Signer: cmp.Or(s.Signer, UnknownSigner),
			Authorities: s.Authorities, Reasons: s.Reasons,
		})
		if err != nil {
			continue // strings and times always marshal
		}
		e.Payload = payload
		out = append(out, e)
	}
	return out
}

// keepSignatures bounds what is kept of one image.
func keepSignatures(list []db.Signature) (kept []db.Signature, dropped int) {
	slices.SortStableFunc(list, func(a, b db.Signature) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Artifact, b.Artifact), cmp.Compare(a.Predicate, b.Predicate), cmp.Compare(a.Signer, b.Signer))
	})
	kept = list[:min(len(list), signaturesMax)]
	return kept, len(list) - len(kept)
}
