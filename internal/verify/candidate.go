package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

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
	artifact gatehouse.Digest // the manifest
	format   string
	layer    gatehouse.Descriptor
}

func (c candidate) reject(code, format string, args ...any) {
	c.run.reject(c.artifact, c.format, code, format, args...)
}

func (r *run) reject(artifact gatehouse.Digest, format, code, message string, args ...any) {
	r.rejected = append(r.rejected, gatehouse.Rejected{
		Need: r.need.Name, Artifact: artifact, Format: format, Code: code, Message: fmt.Sprintf(message, args...),
	})
}

// candidates lists the manifests to look into: the union of the tag scheme, the
// referrers and the index under the fallback tag. Clients differ in where they
// write, registries in what they list, and a repository may hold all of them.
// Manifests that came whole are not fetched again.
func (r *run) candidates(ctx context.Context) []*gatehouse.Manifest {
	var list []*gatehouse.Manifest
	seen := map[gatehouse.Digest]bool{r.image.Digest: true}
	full := false
	add := func(m *gatehouse.Manifest) {
		switch {
		case seen[m.Digest]:
		case len(list) >= manifestsMax:
			full = true
		default:
			seen[m.Digest] = true
			list = append(list, m)
		}
	}
	prefix := r.image.Digest.Algorithm() + "-" + r.image.Digest.Hex()
	suffix := ".sig"
	if r.need.Kind != gatehouse.NeedSignature {
		suffix = ".att"
	}
	if m := r.byTag(ctx, prefix+suffix); m != nil {
		add(m)
	}
	for after, pages := gatehouse.Digest(""), 0; !full; pages++ {
		if pages > manifestsMax/referrersPageSize { // also where a source goes in circles
			full = true
			break
		}
		page, err := r.src.Referrers(ctx, r.image.Repo, r.image.Digest, "", after, referrersPageSize)
		if err != nil {
			if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
				r.failed("", formatNone, err)
			}
			break
		}
		for _, d := range page {
			add(&gatehouse.Manifest{Descriptor: d})
		}
		if len(page) < referrersPageSize {
			break
		}
		after = page[len(page)-1].Digest
	}
	if m := r.byTag(ctx, prefix); m != nil {
		var index struct {
			Manifests []gatehouse.Descriptor `json:"manifests"`
		}
		if err := json.Unmarshal(m.Body, &index); err != nil {
			r.reject(m.Digest, formatNone, CodeMalformed, "the index of referrers under tag %s is not JSON", prefix)
		}
		for _, d := range index.Manifests {
			add(&gatehouse.Manifest{Descriptor: d})
		}
	}
	if full {
		r.reject("", formatNone, CodeTooMany, "more than %d manifests hang on the image; the others were not looked at", manifestsMax)
	}
	return list
}

// byTag returns nil where there is no such tag, or no such tag is possible.
func (r *run) byTag(ctx context.Context, tag string) *gatehouse.Manifest {
	if !gatehouse.ValidTag(tag) { // sha512 is too long for a tag
		return nil
	}
	m, err := r.src.ManifestByTag(ctx, r.image.Repo, tag)
	if err != nil {
		if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			r.failed("", formatNone, err)
		}
		return nil
	}
	return m
}

// open looks into one manifest. What it holds is judged by its layers: the
// artifact type is missing or wrong in listings that older clients wrote.
func (r *run) open(ctx context.Context, m *gatehouse.Manifest) {
	if m.ArtifactType == typeNotary {
		if r.need.Kind.MediaTypes() != nil {
			return // no document
		}
		r.reject(m.Digest, formatNotary, CodeUnsupported, "Notation signatures are not verified yet")
		return
	}
	if m.Body == nil {
		if _, err := gatehouse.ParseDigest(string(m.Digest)); err != nil {
			r.reject("", formatNone, CodeMalformed, "a referrer is listed without a digest")
			return
		}
		if m.Size > gatehouse.ManifestSizeMax {
			r.reject(m.Digest, formatNone, CodeTooLarge, "a manifest of %d bytes, %d at most", m.Size, gatehouse.ManifestSizeMax)
			return
		}
		whole, err := r.src.Manifest(ctx, r.image.Repo, m.Digest)
		if err != nil {
			r.failed(m.Digest, formatNone, err)
			return
		}
		if !m.Digest.Matches(whole.Body) {
			r.reject(m.Digest, formatNone, CodeMalformed, "the manifest's bytes are not those of its digest")
			return
		}
		m = whole
	}
	layers, err := parseLayers(m.Body)
	if err != nil {
		r.reject(m.Digest, formatNone, CodeMalformed, "%s", clip(err.Error()))
		return
	}
	if r.isDocument(layers) {
		r.document(ctx, m, layers)
		return
	}
	for i, l := range layers {
		if i >= layersMax {
			r.reject(m.Digest, formatNone, CodeTooMany, "%d signatures in one manifest; those after the first %d were not looked at", len(layers), layersMax)
			return
		}
		r.layer(ctx, candidate{run: r, artifact: m.Digest, layer: l})
	}
}

// parseLayers reads the layers of a candidate manifest; an index has none.
func parseLayers(body []byte) ([]gatehouse.Descriptor, error) {
	var doc struct {
		Layers []gatehouse.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("the manifest is not JSON: %w", err)
	}
	return doc.Layers, nil
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
	if body, ok := r.readBlob(ctx, c, max); ok {
		check(c, body)
	}
}

// clip keeps foreign text in messages short and on one line.
func clip(s string) string {
	const textMax = 200
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			return r
		}
		return '?' // no escape sequence of somebody else's reaches a terminal
	}, s)), " ")
	if len(s) > textMax {
		return strings.ToValidUTF8(s[:textMax], "") + "…"
	}
	return s
}
