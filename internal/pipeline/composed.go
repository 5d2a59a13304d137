package pipeline

import (
	"context"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// composed is an image that has been put together, on its way into the rows.
type composed struct {
	img       db.Image
	inventory gatehouse.Inventory
	layers    []int64 // rows of those that could be read
	hidden    []db.HiddenSet
	shown     []db.LayerFindings // of the same layers
	files     [][]gatehouse.FileDigest
	counts    db.KindCounts
	valid     bool // its layers are those that its configuration declares
}

// compose lays the layers of an image over each other.
func (p *Pipeline) compose(img db.Image, cfg gatehouse.ImageConfig, results []layerResult) composed {
	var all, present []gatehouse.LayerInventory
	var diffIDs []gatehouse.Digest
	c := composed{img: img, counts: db.KindCounts{}}
	for i, r := range results {
		diffIDs = append(diffIDs, r.inventory.DiffID) // empty where it could not be read
		if r.id == 0 && i < len(cfg.RootFS.DiffIDs) {
			r.inventory.DiffID = cfg.RootFS.DiffIDs[i] // unknown, not different
		}
		all = append(all, r.inventory)
		if r.id != 0 {
			present, c.layers = append(present, r.inventory), append(c.layers, r.id)
			c.files = append(c.files, r.inventory.Files)
			c.shown = append(c.shown, db.LayerFindings{DiffID: r.inventory.DiffID, Findings: r.inventory.Findings})
		}
	}
	c.inventory = index.Compose(all, cfg, img.Digest)
	for _, f := range c.inventory.Findings { // licences are judged by settings, when they are asked for
		c.counts.Add(f)
	}
	// Sets that the distribution reports with its own packages do not count
	// either, whether or not its advisories are loaded: until they are, the
	// image is incomplete, and when they come nothing is indexed again.
	owners := match.OwnersOf(c.inventory.Distro, c.inventory.Packages)
	c.valid = index.CheckDiffIDs(all, cfg) == nil
	for _, h := range append(index.Hidden(present), index.OwnedSets(present, owners.Speaks)...) {
		c.hidden = append(c.hidden, db.HiddenSet{Layer: h.Layer, Set: h.Set})
	}
	c.img.Distro, c.img.Complete, c.img.Reasons = c.inventory.Distro, c.inventory.Complete, c.inventory.Incomplete
	c.img.Layers = c.inventory.Layers
	if chain := db.Chain(diffIDs); len(chain) == len(results) && len(chain) > 0 {
		c.img.Chain = chain[len(chain)-1]
	}
	return c
}

// licensed judges the licences of an image's packages.
func (p *Pipeline) licensed(inv gatehouse.Inventory) []gatehouse.Finding {
	if p.licences == nil {
		return nil
	}
	return p.licences(inv)
}

// store stores what is wrong with a saved image besides the flaws of its packages,
// and queues what is still to be done for it.
func (p *Pipeline) store(ctx context.Context, tx *db.Tx, id int64, c composed) error {
	if err := tx.SaveImageFindings(ctx, id, c.shown, c.inventory.Findings, c.counts); err != nil {
		return err
	}
	for i, layer := range c.layers {
		if err := tx.MatchMalware(ctx, layer, c.files[i]); err != nil {
			return err
		}
	}
	if err := tx.CountMalware(ctx, id); err != nil {
		return err
	}
	if err := p.queueMalware(ctx, tx, id); err != nil {
		return err
	}
	if !c.valid { // no runtime starts it
		return nil
	}
	if err := p.queueAttest(ctx, tx, c.img.Digest); err != nil {
		return err
	}
	return p.queueBills(ctx, tx, c.img.Digest)
}

// Licences judges the licences of a stored image's packages. It reads what is known
// of all layers, which takes some milliseconds; the answer stays true until the
// image is indexed again.
func (p *Pipeline) Licences(ctx context.Context, tx *db.Tx, img db.Image) ([]gatehouse.Finding, error) {
	if p.licences == nil || img.Failed {
		return nil, nil
	}
	inv, err := p.Inventory(ctx, tx, img)
	if err != nil {
		return nil, err
	}
	out := p.licensed(inv)
	for i := range out {
		out[i].FirstSeen = img.FirstIndexedAt
	}
	return out, nil
}

// Inventory puts a stored image together again, from what is stored of its layers.
func (p *Pipeline) Inventory(ctx context.Context, tx *db.Tx, img db.Image) (gatehouse.Inventory, error) {
	layers, err := tx.LayersOfImage(ctx, img.ID)
	if err != nil {
		return gatehouse.Inventory{}, err
	}
	inv := index.Compose(layers, configOf(img, layers), img.Digest)
	inv.Layers, inv.Complete, inv.Incomplete = img.Layers, img.Complete, img.Reasons
	return inv, nil
}

// Layers tells where the layers of a stored image come from, lowest first. Those
// that together are other stored images, bases (of which at most n are named),
// belong to its base, besides those that the index took for it.
func Layers(ctx context.Context, tx *db.Tx, img db.Image, n int) (layers []gatehouse.LayerOrigin, ofBases int, bases []db.Affected, err error) {
	layers = slices.Clone(img.Layers)
	diffIDs := make([]gatehouse.Digest, len(layers))
	for i, l := range layers {
		diffIDs[i] = l.DiffID
	}
	ofBases, bases, err = tx.Bases(ctx, diffIDs, n)
	if err != nil {
		return nil, 0, nil, err
	}
	for i := range layers[:min(ofBases, len(layers))] {
		layers[i].Base = true
	}
	return layers, ofBases, bases, nil
}
