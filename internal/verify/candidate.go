package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	typeSimple   = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeEnvelope = "application/vnd.dsse.envelope.v1+json"
	typeBundle   = "application/vnd.dev.sigstore.bundle" // and what follows: versions
	typeNotary   = "application/vnd.cncf.notary.signature"
)

// candidate is one layer of one manifest that may hold a signature.
type candidate struct {
	run      *run
	place    place
	artifact gatehouse.Digest // the manifest
	format   string
	layer    gatehouse.Descriptor
}

func (c candidate) reject(code, format string, args ...any) {
	c.run.reject(c.artifact, c.format, code, format, args...)
	c.run.rejected[len(c.run.rejected)-1].Mark = c.mark()
}

// mark tells this signature apart. A manifest of the Notary Project is one.
func (c candidate) mark() gatehouse.Digest {
	if c.layer.Digest == "" || c.format == formatNotary {
		return c.artifact
	}
	return markOf(c.layer)
}

func (r *run) reject(artifact gatehouse.Digest, format, code, message string, args ...any) {
	r.rejected = append(r.rejected, gatehouse.Rejected{
		Need: r.need.Name, Artifact: artifact, Format: format, Code: code, Message: fmt.Sprintf(message, args...),
	})
}

// open looks into one manifest. What it holds is judged by its layers: the
// artifact type is missing or wrong in listings that older clients wrote. In a
// manifest that held before, layers that nobody has checked yet are left for
// later, where that is not nil: whoever wraps somebody's signature together with
// a thousand of his own gets no further than with the thousand alone.
func (r *run) open(ctx context.Context, p place, l *listed, later *[]func()) {
	if _, err := gatehouse.ParseDigest(string(l.Digest)); err != nil {
		r.reject("", formatNone, CodeMalformed, "a referrer is listed without a digest")
		return
	}
	m := l.Manifest
	if l.ArtifactType == typeNotary && r.auth.Notary == nil { // not worth a fetch
		r.notary(ctx, candidate{run: r, place: p, artifact: m.Digest, format: formatNotary}, nil, nil)
		return
	}
	if m.Body == nil {
		if m = r.fetch(ctx, p, l); m == nil || l.unlisted && !hangsOn(m.Body, r.image.Digest) {
			return
		}
	}
	layers, artifactType, err := parseLayers(m.Body)
	if err != nil {
		r.reject(m.Digest, formatNone, CodeMalformed, "%s", clip(err.Error()))
		return
	}
	if artifactType == typeNotary || l.ArtifactType == typeNotary {
		r.notary(ctx, candidate{run: r, place: p, artifact: m.Digest, format: formatNotary}, m.Body, layers)
		return
	}
	if r.isDocument(layers) {
		r.document(ctx, p, m, layers)
		return
	}
	var others []int
	for i, d := range layers {
		if ctx.Err() != nil {
			return
		}
		if !r.isFree(d) {
			if len(others) <= layersMax {
				others = append(others, i)
			}
		} else if l.again == nil || !l.again(d) {
			r.layer(ctx, candidate{run: r, place: p, artifact: m.Digest, layer: d})
		}
	}
	switch {
	case later == nil:
		r.unchecked(ctx, p, l, layers, others)
	case len(others) > 0:
		*later = append(*later, func() { r.reopen(ctx, p, l, others) })
	}
}

// reopen looks at those layers of a manifest that were left for later. They are
// read again: many manifests are more than is kept at once.
func (r *run) reopen(ctx context.Context, p place, l *listed, others []int) {
	m := l.Manifest
	if m.Body == nil {
		if m = r.fetch(ctx, p, l); m == nil {
			return
		}
	}
	if layers, _, err := parseLayers(m.Body); err == nil {
		r.unchecked(ctx, p, l, layers, others)
	}
}

// unchecked looks at some layers of a manifest, within the bounds.
func (r *run) unchecked(ctx context.Context, p place, l *listed, layers []gatehouse.Descriptor, others []int) {
	for n, i := range others {
		switch {
		case ctx.Err() != nil:
			return
		case r.spent.read >= candidatesMax:
			r.reject(l.Digest, formatNone, CodeTooMany, "more than %d signatures hang on the image; those of this manifest after the first %d were not looked at", candidatesMax, i)
			return
		case n >= layersMax:
			r.reject(l.Digest, formatNone, CodeTooMany, "%d signatures in one manifest; those after the first %d were not looked at", len(layers), i)
			return
		}
		if d := layers[i]; l.again == nil || !l.again(d) {
			r.spent.read++
			r.layer(ctx, candidate{run: r, place: p, artifact: l.Digest, layer: d})
		}
	}
}

// isFree reports whether a layer held before and so counts against no bound. It
// does so once: the same signature a million times is work like any other.
func (r *run) isFree(d gatehouse.Descriptor) bool {
	signature := d.Annotations[annotationSignature]
	if !r.isHeld("layer", d.Digest, signature) {
		return false
	}
	k := r.heldKey("layer", d.Digest, signature)
	if r.free[k] {
		return false
	}
	if r.free == nil {
		r.free = map[CacheKey]bool{}
	}
	r.free[k] = true
	return true
}

// fetch reads a manifest that is only listed; nil where it is rejected.
func (r *run) fetch(ctx context.Context, p place, m *listed) *gatehouse.Manifest {
	if m.Size > gatehouse.ManifestSizeMax {
		r.reject(m.Digest, formatNone, CodeTooLarge, "a manifest of %d bytes, %d at most", m.Size, gatehouse.ManifestSizeMax)
		return nil
	}
	whole, err := p.src.Manifest(ctx, p.repo, m.Digest)
	switch {
	case err != nil && (m.past || m.unlisted) && gatehouse.CodeOf(err) == gatehouse.CodeNotFound:
		return nil // an old signature that somebody has cleaned up
	case err != nil:
		r.failed(m.Digest, formatNone, err)
	case !m.Digest.Matches(whole.Body):
		r.reject(m.Digest, formatNone, CodeMalformed, "the manifest's bytes are not those of its digest")
	default:
		return whole
	}
	return nil
}

// hangsOn reports whether a manifest names another as its subject. What lay under
// a tag and was taken away there does not.
func hangsOn(body []byte, on gatehouse.Digest) bool {
	var doc struct {
		Subject gatehouse.Descriptor `json:"subject"`
	}
	return json.Unmarshal(body, &doc) == nil && doc.Subject.Digest == on
}

// parseLayers reads the layers of a candidate manifest; an index has none.
func parseLayers(body []byte) (layers []gatehouse.Descriptor, artifactType string, err error) {
	var doc struct {
		ArtifactType string                 `json:"artifactType"`
		Layers       []gatehouse.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, "", fmt.Errorf("the manifest is not JSON: %w", err)
	}
	return doc.Layers, doc.ArtifactType, nil
}

func (r *run) layer(ctx context.Context, c candidate) {
	max := int64(bundleSizeMax)
	var check func(candidate, []byte)
	switch t := c.layer.MediaType; {
	case t == typeSimple && r.need.Kind.MediaTypes() == nil:
		c.format, check, max = FormatLegacy, r.legacy, payloadSizeMax
	case t == typeEnvelope:
		c.format, check = FormatDSSE, r.envelope
	case strings.HasPrefix(t, typeBundle):
		c.format, check = formatBundle+"unknown", r.bundle
	default:
		return // an SBOM, a report, whatever hangs there
	}
	if want := r.auth.Format; r.auth.Notary != nil || want == onlyLegacy && strings.HasPrefix(c.format, formatBundle) || want == onlyBundle && !strings.HasPrefix(c.format, formatBundle) {
		c.reject(CodeOtherFormat, "authority %s accepts %s signatures only", r.auth.name, r.auth.accepts())
		return
	}
	if body, ok := r.readBlob(ctx, c, max); ok {
		c.guard(func() { check(c, body) })
	}
}

// guard rejects a candidate that makes a parser give up: many stand between
// foreign bytes and a verdict, and none may take everybody's admission along.
func (c candidate) guard(check func()) {
	defer func() {
		if p := recover(); p != nil {
			c.reject(CodeMalformed, "it makes the verifier fail: %s", clip(fmt.Sprint(p)))
		}
	}()
	check()
}

// clip keeps foreign text in messages short and on one line.
func clip(s string) string { return gatehouse.Foreign(s, 200) }
