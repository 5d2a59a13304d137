package server

import (
	"cmp"
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// signatureOptions says by whom what hangs on images may be signed. What it asks is
// there by the time that a job does.
func (s *Server) signatureOptions() pipeline.SignatureOptions {
	return pipeline.SignatureOptions{
		InForce: func(ctx context.Context) (gatehouse.Digest, error) {
			set, err := s.policies.Set(ctx)
			return set.Digest, err
		},
		Of: s.signersOf,
		Verify: func(ctx context.Context, src verify.Source, image gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
			return s.facts.verifier.Image(ctx, src, image, need)
		},
	}
}

// tagsAskedMax bounds the tags of an image that policies are asked about.
const tagsAskedMax = 50

// signersOf lists everybody whose word some policy in force takes for an image,
// under any of this server's names and any tag that it has now.
func (s *Server) signersOf(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (pipeline.Signers, error) {
	set, version, err := s.policies.versioned(ctx)
	if err != nil {
		return pipeline.Signers{}, err
	}
	var tags []string
	err = s.db.Read(ctx, func(tx *db.Tx) error {
		id, err := tx.ManifestAt(ctx, repo, digest)
		if err == nil {
			tags, err = tx.TagsOf(ctx, id)
		}
		return err
	})
	if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		return pipeline.Signers{}, err
	}
	images := []gatehouse.ImageFacts{s.facts.named(repo, "", digest)}
	for _, tag := range tags[:min(len(tags), tagsAskedMax)] {
		images = append(images, s.facts.named(repo, tag, digest))
	}
	out := pipeline.Signers{Policies: set.Digest, Version: version}
	seen := map[string]bool{}
	// Some policies speak of Pods only.
	pod, err := podOf(images)
	if err != nil {
		return out, err
	}
	needs := set.Needs(gatehouse.Request{Operation: pullOperation, Images: images})
	pod.Images = set.Images(pod)
	for _, n := range append(needs, set.Needs(pod)...) {
		switch n.Kind {
		case gatehouse.NeedSignature, gatehouse.NeedAttestation, gatehouse.NeedVEX, gatehouse.NeedSBOM:
			if !seen[n.Name] {
				seen[n.Name] = true
				out.List = append(out.List, pipeline.Signer{Name: n.Name, Authority: n.Authority})
			}
		}
	}
	return out, nil
}

// recheckSignatures has signatures checked again where policies came with the
// configuration that were not there before.
func (s *Server) recheckSignatures(ctx context.Context) error {
	set, err := s.policies.Set(ctx)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		stale, err := tx.StaleSignatures(ctx, set.Digest, db.Place{}, 1)
		if err != nil || len(stale) == 0 {
			return err
		}
		return pipeline.PoliciesChanged(ctx, tx)
	})
}

// signatureDoc is one signature or attestation as the API shows it.
type signatureDoc struct {
	Status    string           `json:"status"` // "valid", "unknown-signer", "invalid"
	Signer    string           `json:"signer"` // "unknown signer" unless it is valid
	Artifact  gatehouse.Digest `json:"artifact"`
	Format    string           `json:"format"`
	Predicate string           `json:"predicate,omitempty"`
	SignedAt  time.Time        `json:"signedAt,omitzero"` // by a trusted clock
	ExpiresAt time.Time        `json:"expiresAt,omitzero"`
	FoundAt   time.Time        `json:"foundAt"` // when this server first saw it
	// Through is the index that was signed, which lists the image.
	Through gatehouse.Digest `json:"through,omitempty"`
	db.SignatureDetail
}

// pullDoc is what the project asks of pulls, and whether the image meets it.
type pullDoc struct {
	Mode     gatehouse.PullMode `json:"mode"`
	Policies []string           `json:"policies,omitempty"` // none: all
	Verdict  *gatehouse.Verdict `json:"verdict,omitempty"`  // none where the mode is off
	Decision string             `json:"decision,omitempty"`
	Reasons  []gatehouse.Reason `json:"reasons,omitempty"`
}

// signaturesDoc is the answer of GET /api/v1/images/DIGEST/signatures.
type signaturesDoc struct {
	Repository gatehouse.Repo   `json:"repository"`
	Digest     gatehouse.Digest `json:"digest"`
	CheckedAt  time.Time        `json:"checkedAt,omitzero"` // zero: nothing is attached, or it has not been looked at yet
	Incomplete []string         `json:"incompleteReasons,omitempty"`
	Signatures []signatureDoc   `json:"signatures"`
	PullPolicy pullDoc          `json:"pullPolicy"`
}

var signatureStatuses = map[db.SignatureStatus]string{
	db.SignatureValid: "valid", db.SignatureUnjudged: "unknown-signer", db.SignatureUntrusted: "unknown-signer", db.SignatureBroken: "invalid",
}

// Signatures implements api.Signatures.
func (i images) Signatures(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (any, error) {
	return i.signatures(ctx, repo, "", digest)
}

func (i images) signatures(ctx context.Context, repo gatehouse.Repo, tag string, digest gatehouse.Digest) (signaturesDoc, error) {
	out := signaturesDoc{Repository: repo, Digest: digest, Signatures: []signatureDoc{}}
	err := i.db.Read(ctx, func(tx *db.Tx) error {
		list, check, err := tx.Signatures(ctx, repo, digest)
		if err != nil {
			return err
		}
		out.CheckedAt, out.Incomplete = check.At, check.Incomplete
		for _, s := range list {
			out.Signatures = append(out.Signatures, documentOf(s, ""))
		}
		indexes, err := tx.Ancestors(ctx, repo, digest, ancestorsMax)
		if err != nil {
			return err
		}
		for _, index := range indexes {
			list, _, err := tx.Signatures(ctx, repo, index.Digest)
			if err != nil {
				return err
			}
			for _, s := range list {
				if s.Status == db.SignatureValid {
					out.Signatures = append(out.Signatures, documentOf(s, index.Digest))
				}
			}
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	d, p, err := i.gate.decide(ctx, repo, tag, digest)
	if err != nil {
		return out, err
	}
	if out.PullPolicy = (pullDoc{Mode: p.Mode, Policies: p.Policies}); p.Mode != gatehouse.PullOff {
		out.PullPolicy.Verdict, out.PullPolicy.Decision, out.PullPolicy.Reasons = &d.Verdict, d.ID, d.Reasons
	}
	return out, nil
}

func documentOf(s db.Signature, through gatehouse.Digest) signatureDoc {
	return signatureDoc{
		Status: cmp.Or(signatureStatuses[s.Status], "invalid"), Signer: cmp.Or(s.Signer, pipeline.UnknownSigner), Artifact: s.Artifact, Format: s.Format,
		Predicate: s.Predicate, SignedAt: s.SignedAt, ExpiresAt: s.ExpiresAt, FoundAt: s.FoundAt, Through: through, SignatureDetail: s.SignatureDetail,
	}
}
