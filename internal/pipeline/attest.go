package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/job"
)

// Attestor makes signed attestations of what was found in images.
type Attestor interface {
	// Attest tells what there is to say of an indexed image.
	Attest(ctx context.Context, image gatehouse.Digest) (Attestation, error)
}

// Attestation is one on its way.
type Attestation struct {
	// Verdict names what it says: while that is the same, the one that hangs on the
	// image stays.
	Verdict gatehouse.Digest
	// Type is the artifact type of the manifests that carry attestations.
	Type string
	// Sign signs it for a manifest. The result bears the annotations, too.
	Sign func(ctx context.Context, subject gatehouse.Descriptor, annotations map[string]string) (manifest []byte, blobs [][]byte, err error)
}

// attestMark tells our attestations from those of others, and what they say.
const attestMark = "dev.gatehouse.verdict"

// queueAttest has what was found in an image attested.
func (p *Pipeline) queueAttest(ctx context.Context, tx *db.Tx, digest gatehouse.Digest) error {
	if p.attestor == nil {
		return nil
	}
	payload, err := json.Marshal(billJob{digest})
	if err != nil {
		return err
	}
	_, err = tx.AddJob(ctx, JobAttest, string(digest), payload, tx.Now())
	return err
}

func (p *Pipeline) onAttest(ctx context.Context, work *job.Job) error {
	var j billJob
	if err := json.Unmarshal(work.Payload, &j); err != nil {
		return job.Permanent(err)
	}
	return p.AttestScan(ctx, j.Digest)
}

// AttestScan attaches an attestation of what was found in an image to it, in every
// repository that holds it, in place of the one before. While that says the same
// it stays. It may run anywhere and as often as one likes.
func (p *Pipeline) AttestScan(ctx context.Context, digest gatehouse.Digest) (err error) {
	defer wrap(&err, "attest the scan of %s", digest)
	if p.attestor == nil {
		return nil // it was turned off meanwhile
	}
	var img db.Image
	var ok bool
	var places []db.Place
	err = p.db.Read(ctx, func(tx *db.Tx) (err error) {
		if img, ok, err = tx.ImageByDigest(ctx, digest); err != nil || !ok || img.Failed {
			return err
		}
		places, err = tx.Places(ctx, digest, billRepos)
		return err
	})
	if err != nil || !ok || img.Failed {
		return err
	}
	err = p.attestAt(ctx, digest, places)
	if err != nil && !forGood(err) {
		return err
	}
	if err != nil { // too large, for example: not before the verdict is another one
		err = job.Permanent(err)
	}
	return errors.Join(err, p.db.Write(ctx, func(tx *db.Tx) error { return tx.NoteAttestedScan(ctx, img.ID, verdictAt(img)) }))
}

func (p *Pipeline) attestAt(ctx context.Context, digest gatehouse.Digest, places []db.Place) error {
	a, err := p.attestor.Attest(ctx, digest)
	if err != nil {
		return err
	}
	signed := signedOnce{Attestation: a}
	for _, place := range places {
		err := p.attestIn(ctx, place.Repo, digest, &signed)
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound { // else it was deleted meanwhile
			return err
		}
	}
	return nil
}

// verdictAt is when what was found in an image changed last.
func verdictAt(img db.Image) time.Time {
	if img.MatchedAt.After(img.IndexedAt) {
		return img.MatchedAt
	}
	return img.IndexedAt
}

// signedOnce is an attestation that is signed when the first repository needs it,
// and is the same in all.
type signedOnce struct {
	Attestation
	manifest []byte
	blobs    [][]byte
}

func (p *Pipeline) attestIn(ctx context.Context, repo gatehouse.Repo, image gatehouse.Digest, a *signedOnce) error {
	before, err := p.attached(ctx, repo, image, a.Type, attestMark)
	if err != nil {
		return err
	}
	for _, d := range before {
		if d.Annotations[attestMark] == string(a.Verdict) {
			return p.detach(ctx, repo, before, d.Digest)
		}
	}
	if a.manifest == nil {
		m, err := p.registry.Manifest(ctx, repo, image)
		if err != nil {
			return err
		}
		subject := gatehouse.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
		if a.manifest, a.blobs, err = a.Sign(ctx, subject, map[string]string{attestMark: string(a.Verdict)}); err != nil {
			return err
		}
	}
	return p.replace(ctx, repo, before, a.manifest, a.blobs...)
}

// queueUnattested adds jobs for the next images whose verdict has changed since it
// was attested, as far as there is room, and tells whether any may be left. Many
// change with one feed: they are attested a few at a time.
func (p *Pipeline) queueUnattested(ctx context.Context) (more bool, err error) {
	if p.attestor == nil {
		return false, nil
	}
	after := p.attestAfter
	err = p.db.Write(ctx, func(tx *db.Tx) error {
		after, more = p.attestAfter, true
		room, err := p.room(ctx, tx, JobAttest)
		if err != nil || room == 0 {
			return err
		}
		list, err := tx.UnattestedScans(ctx, after, room)
		if err != nil {
			return err
		}
		if len(list) == 0 { // the end, unless verdicts have changed behind us
			after, more = 0, p.attestAgain.Swap(false)
		}
		for _, i := range list {
			if err := p.queueAttest(ctx, tx, i.Digest); err != nil {
				return err
			}
			after = i.ID
		}
		return nil
	})
	if err == nil {
		p.attestAfter = after
	}
	return more, err
}

// verdictsChanged has the background look for verdicts to attest.
func (p *Pipeline) verdictsChanged() {
	p.attestAgain.Store(true)
	p.wakeUp()
}

func (p *Pipeline) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default: // it will look anyway
	}
}
