package content

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Media types of what cosign before version 3 keeps under its tags, one layer for
// each signature or attestation.
const (
	typeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeEnvelope      = "application/vnd.dsse.envelope.v1+json"
	typeImageConfig   = "application/vnd.oci.image.config.v1+json"
)

// list copies a tag of signatures. What lies under the tag already stays.
func (p *treePut) list(ctx context.Context, l treeList) error {
	there, err := p.tx.ManifestByTag(ctx, p.to, l.tag)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		there, err = nil, nil
	}
	if err != nil {
		return err
	}
	if there != nil && there.Digest == l.manifests[0].Digest && len(l.manifests) == 1 {
		return nil
	}
	bodies, ordered, err := p.inOrder(ctx, l, there)
	if err != nil {
		return err
	}
	all, joined := join(bodies)
	switch {
	case !joined: // an SBOM, of which there is one, or something of others
		if there != nil && there.Digest == l.manifests[0].Digest {
			return nil
		}
		return p.move(ctx, l.manifests[0].Manifest, l.tag)
	case there != nil && holds(there.Body, all):
		return nil
	case ordered && holds(l.manifests[0].Body, all):
		return p.move(ctx, l.manifests[0].Manifest, l.tag)
	}
	config, body, err := listManifest(all)
	if err != nil {
		return err
	}
	if len(config) > InlineMax || len(body) > gatehouse.ManifestSizeMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the %d signatures under tag %s of both repositories are too many for one manifest", len(all), l.tag).
			WithHint("delete the tag in one of them; bundles, which cosign writes since version 3, do not share a manifest")
	}
	p.done.Tags++
	p.done.Manifests++
	return p.PutSmall(ctx, p.tx, p.actor, gatehouse.ManifestPut{Repo: p.to, Tags: []string{l.tag}, MediaType: MediaTypeManifest, Body: body}, config)
}

// inOrder lists what is joined: what holds valid signatures comes first, since who
// verifies looks at so many of one manifest, and whoever may push others must not
// put these out of reach. ordered: the source's own manifest has them in that order.
func (p *treePut) inOrder(ctx context.Context, l treeList, there *gatehouse.Manifest) (bodies [][]byte, ordered bool, err error) {
	valid, err := validUnder(ctx, p.tx, p.to, l.tag)
	if err != nil {
		return nil, false, err
	}
	var others [][]byte
	add := func(m *gatehouse.Manifest, valid bool) {
		if valid {
			bodies = append(bodies, m.Body)
		} else {
			others = append(others, m.Body)
		}
	}
	if there != nil {
		add(there, valid[there.Digest])
	}
	for _, item := range l.manifests {
		add(item.Manifest, l.valid[item.Digest])
	}
	ordered = len(bodies) == 0 || l.valid[l.manifests[0].Digest]
	return append(bodies, others...), ordered, nil
}

func (p *treePut) move(ctx context.Context, m *gatehouse.Manifest, tag string) error {
	p.done.Tags++
	return p.put(ctx, m, []string{tag})
}

// layer is one signature under a tag. key tells it from others.
type layer struct {
	raw    json.RawMessage
	key    string
	digest gatehouse.Digest
}

// layersOf reads the signatures of a manifest. ok is false where it is anything
// else.
func layersOf(body []byte) (out []layer, ok bool) {
	var doc struct {
		Layers []json.RawMessage `json:"layers"`
	}
	if json.Unmarshal(body, &doc) != nil || len(doc.Layers) == 0 {
		return nil, false
	}
	for _, raw := range doc.Layers {
		var d gatehouse.Descriptor
		if json.Unmarshal(raw, &d) != nil || d.MediaType != typeSimpleSigning && d.MediaType != typeEnvelope {
			return nil, false
		}
		key, err := json.Marshal(d)
		if err != nil {
			return nil, false
		}
		out = append(out, layer{raw, string(key), d.Digest})
	}
	return out, true
}

// join lists the signatures of all manifests, each once, in their order. ok is
// false where one of them is no list of signatures.
func join(bodies [][]byte) (all []layer, ok bool) {
	seen := map[string]bool{}
	for _, body := range bodies {
		list, ok := layersOf(body)
		if !ok {
			return nil, false
		}
		for _, l := range list {
			if !seen[l.key] {
				seen[l.key] = true
				all = append(all, l)
			}
		}
	}
	return all, true
}

// holds reports whether a manifest lists all of these signatures.
func holds(body []byte, all []layer) bool {
	list, ok := layersOf(body)
	return ok && !slices.ContainsFunc(all, func(l layer) bool {
		return !slices.ContainsFunc(list, func(o layer) bool { return o.key == l.key })
	})
}

// listManifest writes a list of signatures as cosign does: an image whose layers
// they are, not compressed, so that each diffID is the layer's digest.
func listManifest(all []layer) (config, body []byte, err error) {
	type object = map[string]any
	const never = "0001-01-01T00:00:00Z"
	var ids []gatehouse.Digest
	var history []object
	var layers []json.RawMessage
	for _, l := range all {
		ids, layers, history = append(ids, l.digest), append(layers, l.raw), append(history, object{"created": never})
	}
	config, err = json.Marshal(object{
		"architecture": "", "os": "", "created": never, "config": object{}, "history": history,
		"rootfs": object{"type": "layers", "diff_ids": ids},
	})
	if err != nil {
		return nil, nil, err
	}
	body, err = json.Marshal(object{
		"schemaVersion": 2, "mediaType": MediaTypeManifest, "layers": layers,
		"config": gatehouse.Descriptor{MediaType: typeImageConfig, Digest: gatehouse.DigestOf(config), Size: int64(len(config))},
	})
	return config, body, err
}

// fallback has a fallback tag tell of referrers that do not name their subject,
// beside those that it tells of already.
func (p *treePut) fallback(ctx context.Context, subject gatehouse.Digest, add []gatehouse.Descriptor) error {
	tag := subject.FallbackTag()
	there, err := p.tx.ManifestByTag(ctx, p.to, tag)
	if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		return err
	}
	entries := []json.RawMessage{}
	known := map[gatehouse.Digest]bool{}
	if there != nil {
		var index struct {
			Manifests []json.RawMessage `json:"manifests"`
		}
		if !strings.HasSuffix(there.MediaType, "index.v1+json") || json.Unmarshal(there.Body, &index) != nil {
			return gatehouse.Errorf(gatehouse.CodeConflict, "tag %s of repository %s is no list of referrers", tag, p.to).WithHint("delete the tag")
		}
		for _, raw := range index.Manifests {
			var d gatehouse.Descriptor
			if json.Unmarshal(raw, &d) == nil {
				known[d.Digest] = true
			}
		}
		entries = index.Manifests
	}
	fresh := false
	for _, d := range add {
		if known[d.Digest] {
			continue
		}
		raw, err := entry(d)
		if err != nil {
			return err
		}
		known[d.Digest], fresh, entries = true, true, append(entries, raw)
	}
	if !fresh {
		return nil
	}
	body, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": MediaTypeIndex, "manifests": entries})
	if err != nil {
		return err
	}
	p.done.Tags++
	p.done.Manifests++
	return p.putAs(ctx, MediaTypeIndex, body, p.actor.Name, []string{tag})
}
