package pipeline

import (
	"context"
	"encoding/json"
	"io"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// Foreign is an image of another registry, to be looked at without being stored.
type Foreign struct {
	Digest gatehouse.Digest
	Config []byte
	Layers []ForeignLayer // lowest first
}

// ForeignLayer is one of its layers.
type ForeignLayer struct {
	gatehouse.Descriptor
	// Open reads the layer as it is stored. It must verify the bytes against the
	// digest: the analysis is kept under that name for everybody.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// Stat asks whether the repository holds the layer. CodeNotFound: it does not.
	Stat func(ctx context.Context) error
}

// LookAt says what is inside a foreign image and what is wrong with its packages
// by the advisories in force. A layer whose bytes were ever looked at, of whichever
// image, is not read again, if the repository says that it holds it: who names
// another's digest in a manifest of theirs learns nothing of that layer. Nothing but the analyses of layers is stored; the image
// neither counts among the stored ones nor changes what is known of one with the
// same digest. The inventory's Findings are left out. Errors: CodeInvalid (no
// image, or a configuration that cannot be read), CodeNotFound (there are no
// advisories yet), and those of Open.
func (p *Pipeline) LookAt(ctx context.Context, f Foreign) (inv gatehouse.Inventory, found []gatehouse.Finding, err error) {
	defer wrap(&err, "look at %s", f.Digest)
	var cfg gatehouse.ImageConfig
	if err := json.Unmarshal(f.Config, &cfg); err != nil {
		return inv, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the image configuration is not valid JSON: %w", err)
	}
	results := make([]layerResult, len(f.Layers))
	var stack index.Stack
	for i, l := range f.Layers {
		if !isLayer(l.MediaType) {
			return inv, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a layer is of type %.100q: that is no image to run", l.MediaType)
		}
		if err := stack.Next(); err != nil {
			results[i] = unread(l.Digest, err)
			continue
		}
		r, err := p.foreignLayer(ctx, l)
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			err = gatehouse.Errorf(gatehouse.CodeInvalid, "its bytes are not in this repository")
		}
		if forGood(err) {
			r = unread(l.Digest, err)
		} else if err != nil {
			return inv, nil, err
		}
		stack.Add(r.inventory)
		results[i] = r
	}
	c := p.compose(db.Image{Digest: f.Digest, Config: f.Config}, cfg, results)
	if err := p.db.Write(ctx, func(tx *db.Tx) error { return tx.UseLayers(ctx, c.layers) }); err != nil {
		return inv, nil, err
	}
	inv = c.inventory
	inv.Findings = nil
	_, file, release, err := p.advisories.Acquire(ctx)
	if err != nil {
		return inv, nil, err
	}
	defer release()
	if file == nil {
		return inv, nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there are no advisories yet").WithHint("import some with gatehouse db import, or set feeds")
	}
	res, err := match.Findings(ctx, inv.Distro, inv.Packages, file)
	if err != nil {
		return inv, nil, err
	}
	if len(res.Uncovered) > 0 {
		inv.Complete, inv.Incomplete = false, append(inv.Incomplete, res.Uncovered...)
	}
	return inv, res.Findings, file.Enrich(ctx, res.Findings)
}

// foreignLayer finds or makes the analysis of one layer.
func (p *Pipeline) foreignLayer(ctx context.Context, l ForeignLayer) (layerResult, error) {
	var known db.Layer
	var ok bool
	err := p.db.Read(ctx, func(tx *db.Tx) (err error) {
		known, ok, err = tx.LayerByBlob(ctx, l.Digest, p.indexer)
		return err
	})
	if err == nil && ok {
		err = l.Stat(ctx)
	}
	if err != nil || ok {
		return layerResult{known.ID, known.Inventory}, err
	}
	body, err := l.Open(ctx)
	if err != nil {
		return layerResult{}, err
	}
	defer body.Close()
	inv, err := index.Layer(ctx, body, p.limits, p.analysis)
	if err != nil {
		return layerResult{}, err
	}
	inv.Blob = l.Digest
	var id int64
	err = p.db.Write(ctx, func(tx *db.Tx) (err error) {
		if id, err = tx.SaveLayer(ctx, inv); err != nil {
			return err
		}
		return tx.UseLayers(ctx, []int64{id})
	})
	return layerResult{id, inv}, err
}
