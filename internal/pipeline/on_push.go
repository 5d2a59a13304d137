package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// configSizeMax bounds an image configuration, in bytes.
const configSizeMax = 8 << 20

// movedMax is how often a push starts over because a feed update overtook it.
const movedMax = 20

// onPush indexes one pushed manifest: each layer that has not been seen is read
// once, the image is composed of its layers, and its new packages are matched.
func (p *Pipeline) onPush(ctx context.Context, work *job.Job) (err error) {
	var j indexJob
	if err := json.Unmarshal(work.Payload, &j); err != nil {
		return job.Permanent(err)
	}
	defer wrap(&err, "index %s@%s", j.Repo, j.Digest)
	m, err := p.content.Manifest(ctx, j.Repo, j.Digest)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	var manifest imageManifest
	if err := json.Unmarshal(m.Body, &manifest); err != nil {
		return err
	}
	if !manifest.image() {
		return nil
	}
	img := db.Image{Digest: j.Digest, Indexer: p.indexer}
	config, cfg, err := p.config(ctx, j.Repo, manifest.Config)
	if forGood(err) {
		return p.saveFailed(ctx, j.Repo, img, "the image configuration cannot be read: "+err.Error())
	}
	if err != nil {
		return err
	}
	img.Config = config
	layers, err := p.layers(ctx, j.Repo, manifest.Layers)
	if err != nil {
		return err
	}
	return p.saveImage(ctx, j.Repo, img, cfg, layers)
}

func (p *Pipeline) config(ctx context.Context, repo gatehouse.Repo, d gatehouse.Descriptor) (raw []byte, cfg gatehouse.ImageConfig, err error) {
	if d.Size > configSizeMax {
		return nil, cfg, gatehouse.Errorf(gatehouse.CodeTooLarge, "%d bytes are more than %d", d.Size, configSizeMax)
	}
	blob, err := p.content.OpenBlob(ctx, repo, d.Digest)
	if err != nil {
		return nil, cfg, err
	}
	defer blob.Body.Close()
	raw, err = io.ReadAll(io.LimitReader(blob.Body, configSizeMax+1))
	if err != nil {
		return nil, cfg, err
	}
	if len(raw) > configSizeMax {
		return nil, cfg, gatehouse.Errorf(gatehouse.CodeTooLarge, "it is larger than %d bytes", configSizeMax)
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return nil, cfg, gatehouse.Errorf(gatehouse.CodeInvalid, "not valid JSON: %w", err)
	}
	return raw, cfg, nil
}

// layerResult is a layer of the image on its way: id is 0 for one that could
// not be read.
type layerResult struct {
	id        int64
	inventory gatehouse.LayerInventory
}

func (p *Pipeline) layers(ctx context.Context, repo gatehouse.Repo, ds []gatehouse.Descriptor) ([]layerResult, error) {
	out := make([]layerResult, len(ds))
	var stack index.Stack
	for i, d := range ds {
		if err := stack.Next(); err != nil {
			out[i] = unread(d.Digest, err)
			continue
		}
		l, err := p.layer(ctx, repo, d)
		if forGood(err) {
			p.log.WarnContext(ctx, "index layer failed", "repo", repo, "layer", d.Digest, "error", err)
			out[i] = unread(d.Digest, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		stack.Add(l.inventory)
		out[i] = l
	}
	return out, nil
}

// unread is a layer that is left out, with the reason.
func unread(layer gatehouse.Digest, why error) layerResult {
	reason := fmt.Sprintf("layer %s is only partly indexed: %v", layer, why)
	return layerResult{inventory: gatehouse.LayerInventory{Blob: layer, Incomplete: []string{reason}}}
}

// layer finds or makes the analysis of one layer. That the repository holds the
// layer is asked first: who names another's digest learns nothing of it.
func (p *Pipeline) layer(ctx context.Context, repo gatehouse.Repo, d gatehouse.Descriptor) (layerResult, error) {
	if _, err := p.content.StatBlob(ctx, repo, d.Digest); gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		// A foreign layer: its bytes were never pushed.
		return layerResult{}, gatehouse.Errorf(gatehouse.CodeInvalid, "its bytes are not in this repository")
	} else if err != nil {
		return layerResult{}, err
	}
	var known db.Layer
	var ok bool
	err := p.db.Read(ctx, func(tx *db.Tx) (err error) {
		known, ok, err = tx.LayerByBlob(ctx, d.Digest, p.indexer)
		return err
	})
	if err != nil || ok {
		return layerResult{known.ID, known.Inventory}, err
	}
	blob, err := p.content.OpenBlob(ctx, repo, d.Digest)
	if err != nil {
		return layerResult{}, err
	}
	defer blob.Body.Close()
	inv, err := index.Layer(ctx, blob.Body, p.limits, p.analysis)
	if err != nil {
		return layerResult{}, err
	}
	// The name of the stored bytes may use another algorithm than the index.
	inv.Blob = d.Digest
	var id int64
	err = p.db.Write(ctx, func(tx *db.Tx) (err error) {
		id, err = tx.SaveLayer(ctx, inv)
		return err
	})
	return layerResult{id, inv}, err
}

func (p *Pipeline) saveFailed(ctx context.Context, repo gatehouse.Repo, img db.Image, reason string) error {
	return p.db.Write(ctx, func(tx *db.Tx) error { return p.saveFailedIn(ctx, tx, repo, img, reason) })
}

func (p *Pipeline) saveFailedIn(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, img db.Image, reason string) error {
	img.Failed, img.Complete, img.Reasons = true, false, []string{reason}
	img.Config = []byte("{}")
	id, err := tx.SaveImage(ctx, img, nil, nil)
	if err != nil {
		return err
	}
	if err := tx.DropImageFindings(ctx, id); err != nil {
		return err
	}
	return p.indexed(ctx, tx, repo, img)
}

// saveImage composes the image, matches what is new in it, and stores all of it
// in one transaction that is true for the advisory generation in force.
func (p *Pipeline) saveImage(ctx context.Context, repo gatehouse.Repo, img db.Image, cfg gatehouse.ImageConfig, results []layerResult) error {
	c := p.compose(img, cfg, results)
	inv := c.inventory
	c.img.OSSpace = match.Scope(inv.Distro)
	c.img.Spaces = spaces(inv)
	unknown, err := match.Findings(ctx, inv.Distro, inv.Packages, everything{})
	if err != nil {
		return err
	}
	if len(unknown.Uncovered) > 0 {
		c.img.Complete, c.img.Reasons = false, append(c.img.Reasons, unknown.Uncovered...)
	}
	for range movedMax {
		err := p.matchAndSave(ctx, repo, c)
		var much tooMuch
		if errors.As(err, &much) {
			p.log.WarnContext(ctx, "image cannot be matched", "repo", repo, "image", c.img.Digest, "error", err)
			return p.saveFailed(ctx, repo, c.img, much.Error())
		}
		if !errors.Is(err, errMoved) {
			return err
		}
	}
	return errMoved
}

// versionsMax is how many new versions of what advisories know by one name an image
// may bring. Whatever is said of that name is said of each of them, now and with
// each feed to come: a layer that lists every version there could be is an attack.
const versionsMax = 1000

// findingsMax bounds what new packages of an image may have.
var findingsMax = match.FindingsMax

// tooMuch says why an image is not matched at all: what is found in it would fill
// the memory, or the database.
type tooMuch string

func (e tooMuch) Error() string { return string(e) }

func (p *Pipeline) matchAndSave(ctx context.Context, repo gatehouse.Repo, c composed) error {
	img, places := c.img, match.PlacesOf(c.inventory.Distro)
	gen, file, release, err := p.advisories.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	var packages map[int64]gatehouse.Package
	err = p.db.Read(ctx, func(tx *db.Tx) (err error) {
		packages, err = tx.UnmatchedPackages(ctx, c.layers, img.OSSpace)
		return err
	})
	if err != nil {
		return err
	}
	var named []db.NamedPackage
	var found []db.PackageFindings
	m := newMatcher(file)
	versions, findings := map[db.Name]int{}, 0
	for id, pkg := range packages {
		n := db.NamedPackage{ID: id, Package: pkg}
		if pkg.OS() {
			n.OSSpace = img.OSSpace
		}
		for _, key := range places.Keys(pkg) {
			n.Names = append(n.Names, db.Name(key))
			if versions[db.Name(key)]++; versions[db.Name(key)] > versionsMax {
				return tooMuch(fmt.Sprintf("the image lists more than %d versions of %s", versionsMax, key.Name))
			}
		}
		f, err := m.match(ctx, n)
		if err != nil {
			return err
		}
		if findings += len(f.Findings); findings > findingsMax {
			return tooMuch(fmt.Sprintf("there are more than %d vulnerabilities in the packages of the image", findingsMax))
		}
		named, found = append(named, n), append(found, f)
	}
	img.Generation = gen.ID
	return p.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Matching(ctx); err != nil { // the generation stays as it is from here on
			return err
		}
		now, _, err := tx.CurrentGeneration(ctx)
		if err != nil {
			return err
		}
		if now.ID != gen.ID {
			return errMoved
		}
		id, err := tx.SaveImage(ctx, img, c.layers, c.hidden)
		if err != nil {
			return err
		}
		for _, n := range named {
			for _, name := range n.Names {
				if err := tx.NamePackage(ctx, n.ID, n.OSSpace, name); err != nil {
					return err
				}
			}
		}
		for _, f := range found {
			if _, err := tx.ReplaceFindings(ctx, f); err != nil {
				return err
			}
		}
		if err := tx.CountImage(ctx, id, img.OSSpace, gen.ID); err != nil {
			return err
		}
		if err := p.store(ctx, tx, id, c); err != nil {
			return err
		}
		return p.indexed(ctx, tx, repo, img)
	})
}

func (p *Pipeline) indexed(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, img db.Image) error {
	if p.onIndexed != nil && !img.Failed {
		if err := p.onIndexed(ctx, tx, img.Digest); err != nil {
			return err
		}
	}
	return tx.AddEvent(ctx, gatehouse.Event{Type: gatehouse.EventIndexed, Actor: gatehouse.System("pipeline").Name, Repo: repo, Digest: img.Digest})
}

// matcher matches package versions under all their names. It is for one
// goroutine: it remembers what it has looked up.
type matcher struct{ *match.Matcher }

// newMatcher matches by file. Without advisories nothing is wrong.
func newMatcher(file *advisory.File) matcher {
	if file == nil {
		return matcher{match.NewMatcher(everything{})}
	}
	return matcher{match.NewMatcher(file)}
}

func (m matcher) match(ctx context.Context, n db.NamedPackage) (db.PackageFindings, error) {
	out := db.PackageFindings{PackageID: n.ID, Package: n.Package.Name + " " + n.Package.Version, OSSpace: n.OSSpace}
	if len(n.Names) == 0 {
		return out, nil
	}
	keys := make([]match.Key, len(n.Names))
	for i, name := range n.Names {
		keys[i] = match.Key(name)
	}
	var err error
	out.Findings, err = m.Package(ctx, n.Package, keys)
	return out, err
}

// spaces lists where the packages of an image are looked up; alternatives, one
// of which is enough to know the release, are joined by a bar.
func spaces(inv gatehouse.Inventory) []string {
	out := []string{}
	owners, places := match.OwnersOf(inv.Distro, inv.Packages), match.PlacesOf(inv.Distro)
	for _, pkg := range inv.Packages {
		if owners.MayBeReported(pkg) {
			continue
		}
		var alternatives []string
		for _, key := range places.Keys(pkg) {
			if !slices.Contains(alternatives, key.Space) {
				alternatives = append(alternatives, key.Space)
			}
		}
		if len(alternatives) > 0 {
			out = append(out, strings.Join(alternatives, "|"))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Uncovered says, a sentence each, which of an image's spaces the advisories of
// file do not cover. No file covers none.
func Uncovered(ctx context.Context, img db.Image, file *advisory.File) ([]string, error) {
	var out []string
	for _, s := range img.Spaces {
		covered := false
		first, _, _ := strings.Cut(s, "|")
		for space := range strings.SplitSeq(s, "|") {
			if file == nil || covered {
				break
			}
			var err error
			if covered, err = file.Covers(ctx, space); err != nil {
				return nil, err
			}
		}
		if !covered {
			out = append(out, "no advisories for "+first+" are loaded")
		}
	}
	return out, nil
}

// everything stands for advisories that cover all there is and know of no flaw:
// what match still calls uncovered then, no feed will ever cover.
type everything struct{}

func (everything) For(context.Context, string, string) ([]gatehouse.Advisory, error) { return nil, nil }
func (everything) Named(context.Context, string) ([]gatehouse.Advisory, error)       { return nil, nil }
func (everything) Covers(context.Context, string) (bool, error)                      { return true, nil }
