package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/job"
)

// Bill writes bills of materials in one format.
type Bill struct {
	// Type is the media type of the document and the artifact type of the
	// manifest that attaches it.
	Type string
	// Write writes the bill of an image. It must be a function of its arguments:
	// then every replica and every repository has the same bytes, and they are
	// attached once. created is the image's own time, zero where it has none;
	// platform is "linux/amd64".
	Write func(inv gatehouse.Inventory, platform string, created time.Time) ([]byte, error)
}

const (
	// billMax bounds one document, in bytes.
	billMax = 256 << 20
	// billRepos is how many repositories of one image get its bills.
	billRepos = 10_000
	// billMark tells manifests of ours from those of others.
	billMark  = "dev.gatehouse.sbom"
	emptyType = "application/vnd.oci.empty.v1+json" // image-spec manifest.md, "Guidance for an Empty Descriptor"
)

var emptyBlob = []byte("{}")

type billJob struct {
	Digest gatehouse.Digest `json:"digest"`
}

// queueBills has the bills of an image written.
func (p *Pipeline) queueBills(ctx context.Context, tx *db.Tx, digest gatehouse.Digest) error {
	if len(p.bills) == 0 {
		return nil
	}
	payload, err := json.Marshal(billJob{digest})
	if err != nil {
		return err
	}
	_, err = tx.AddJob(ctx, JobBill, string(digest), payload, tx.Now())
	return err
}

func (p *Pipeline) onBill(ctx context.Context, work *job.Job) error {
	var j billJob
	if err := json.Unmarshal(work.Payload, &j); err != nil {
		return job.Permanent(err)
	}
	return p.AttachBills(ctx, j.Digest)
}

// AttachBills attaches the bills of an indexed image to it, in every repository
// that holds it. They go when it goes. One that was attached before and says
// something else, since another indexer saw the image, is taken away. It may run
// anywhere and as often as one likes.
func (p *Pipeline) AttachBills(ctx context.Context, digest gatehouse.Digest) (err error) {
	defer wrap(&err, "attach the SBOM of %s", digest)
	if len(p.bills) == 0 {
		return nil // they were turned off meanwhile
	}
	var img db.Image
	var ok bool
	var inv gatehouse.Inventory
	var places []db.Place
	err = p.db.Read(ctx, func(tx *db.Tx) (err error) {
		if img, ok, err = tx.ImageByDigest(ctx, digest); err != nil || !ok || img.Failed {
			return err
		}
		if places, err = tx.Places(ctx, digest, billRepos); err != nil {
			return err
		}
		inv, err = p.Inventory(ctx, tx, img)
		return err
	})
	if err != nil || !ok || img.Failed {
		return err
	}
	platform, created := about(img.Config)
	for _, b := range p.bills {
		doc, err := b.Write(inv, platform, created)
		if err != nil {
			return err
		}
		if len(doc) > billMax {
			return job.Permanent(gatehouse.Errorf(gatehouse.CodeTooLarge, "the SBOM has %d bytes", len(doc)))
		}
		for _, place := range places {
			err := p.attach(ctx, place.Repo, digest, b.Type, doc)
			if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
				continue // deleted meanwhile
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// about reads what an image configuration says of the image.
func about(config []byte) (platform string, created time.Time) {
	var c struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
		Created      string `json:"created"`
	}
	if json.Unmarshal(config, &c) != nil {
		return "", time.Time{}
	}
	created, _ = time.Parse(time.RFC3339Nano, c.Created) // zero where it cannot be read
	if c.OS == "" || c.Architecture == "" {
		return "", created
	}
	platform = c.OS + "/" + c.Architecture
	if c.Variant != "" {
		platform += "/" + c.Variant
	}
	return platform, created
}

// attach puts a document beside the image that it is about.
func (p *Pipeline) attach(ctx context.Context, repo gatehouse.Repo, image gatehouse.Digest, mediaType string, doc []byte) error {
	subject, err := p.registry.Manifest(ctx, repo, image)
	if err != nil {
		return err
	}
	type object = map[string]any
	body, err := json.Marshal(object{
		"schemaVersion": 2, "mediaType": ociManifest, "artifactType": mediaType,
		"config":      object{"mediaType": emptyType, "digest": gatehouse.DigestOf(emptyBlob), "size": len(emptyBlob)},
		"layers":      []object{{"mediaType": mediaType, "digest": gatehouse.DigestOf(doc), "size": len(doc)}},
		"subject":     object{"mediaType": subject.MediaType, "digest": subject.Digest, "size": subject.Size},
		"annotations": object{billMark: "1"},
	})
	if err != nil {
		return err
	}
	before, err := p.attached(ctx, repo, image, mediaType, billMark)
	if err != nil {
		return err
	}
	return p.replace(ctx, repo, before, body, emptyBlob, doc)
}

// replace attaches a manifest with its blobs, unless it is there, and takes away
// those that were attached before.
func (p *Pipeline) replace(ctx context.Context, repo gatehouse.Repo, before []gatehouse.Descriptor, body []byte, blobs ...[]byte) error {
	actor, digest := gatehouse.System("pipeline"), gatehouse.DigestOf(body)
	if !slices.ContainsFunc(before, func(d gatehouse.Descriptor) bool { return d.Digest == digest }) {
		for _, b := range blobs {
			if err := p.putBlob(ctx, actor, repo, b); err != nil {
				return err
			}
		}
		if _, err := p.registry.PutManifest(ctx, actor, gatehouse.ManifestPut{Repo: repo, Digest: digest, MediaType: ociManifest, Body: body}); err != nil {
			return err
		}
	}
	return p.detach(ctx, repo, before, digest)
}

// detach takes away what we attached, but for the one of digest.
func (p *Pipeline) detach(ctx context.Context, repo gatehouse.Repo, list []gatehouse.Descriptor, but gatehouse.Digest) error {
	for _, old := range list {
		if old.Digest == but {
			continue
		}
		err := p.registry.DeleteManifest(ctx, gatehouse.System("pipeline"), repo, old.Digest)
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			return err
		}
	}
	return nil
}

// attached lists what of this artifact type and with this annotation we attached
// before. Whoever may push can write the mark, but not our name beside it.
func (p *Pipeline) attached(ctx context.Context, repo gatehouse.Repo, image gatehouse.Digest, mediaType, mark string) (out []gatehouse.Descriptor, err error) {
	const page, pagesMax = 100, 100
	after := gatehouse.Digest("")
	for range pagesMax {
		list, err := p.registry.Referrers(ctx, repo, image, mediaType, after, page)
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			if d.Annotations[mark] == "" {
				continue
			}
			m, err := p.registry.Manifest(ctx, repo, d.Digest)
			if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
				continue
			}
			if err != nil {
				return nil, err
			}
			if m.PushedBy == gatehouse.System("pipeline").Name {
				out = append(out, d)
			}
		}
		if len(list) < page {
			break
		}
		after = list[len(list)-1].Digest
	}
	return out, nil
}

// putBlob stores a blob unless the repository has it.
func (p *Pipeline) putBlob(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, b []byte) error {
	digest := gatehouse.DigestOf(b)
	if _, err := p.registry.StatBlob(ctx, repo, digest); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		return err
	}
	up, err := p.registry.StartUpload(ctx, actor, repo, gatehouse.SHA256)
	if err != nil {
		return err
	}
	if _, err = up.Append(ctx, 0, bytes.NewReader(b)); err == nil {
		_, err = up.Commit(ctx, digest)
	}
	if err != nil {
		_ = up.Cancel(context.WithoutCancel(ctx)) // it would be swept later
	}
	return err
}
