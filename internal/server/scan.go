package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

const (
	childrenMax = 256 // images of one index, nested ones included
	nestingMax  = 4   // indexes inside indexes
)

// scanKey names everything that a scan depends on.
type scanKey struct {
	digest     gatehouse.Digest
	generation int64
	indexedAt  time.Time
}

// scansMax and scanFindingsMax bound the scans kept in memory, and the findings
// in all of them (about 1 KiB each); past it, half of the scans go. A scan that
// would fill the memory by itself is not kept.
const (
	scansMax        = 1024
	scanFindingsMax = 64_000
)

// Scan implements gather.Scanner: it reads the verdict that the pipeline keeps.
// Images of other registries, and those that are not indexed yet, have none.
func (f *facts) Scan(ctx context.Context, ref gatehouse.Ref) (gather.Scan, error) {
	if !f.isOwn(ref.Registry) {
		return unscanned("the image is in another registry and has not been scanned"), nil
	}
	m, err := f.content.Manifest(ctx, ref.Repo, ref.Digest)
	if err != nil {
		return gather.Scan{}, err
	}
	children := 0
	return f.scanManifest(ctx, m, &children, 0)
}

func unscanned(format string, args ...any) gather.Scan {
	return gather.Scan{Incomplete: []string{fmt.Sprintf(format, args...)}}
}

// scanManifest scans an image or an index, without what is accepted.
func (f *facts) scanManifest(ctx context.Context, m *gatehouse.Manifest, children *int, depth int) (scan gather.Scan, err error) {
	switch {
	case pipeline.IsIndex(m.MediaType):
		scan, err = f.scanIndex(ctx, m, children, depth)
	case !pipeline.IsImage(m):
		return unscanned("%s is not an image: its configuration or a layer is of another kind", m.Digest), nil
	default:
		scan, err = f.scanImage(ctx, m.Digest)
	}
	if err != nil {
		return gather.Scan{}, err
	}
	return f.accept(ctx, m, scan)
}

// scanIndex is the sum of the images of an index: a node runs any one of them.
// One that is not an image, or not scanned whole, leaves the index incomplete,
// unless no node can pick it (the attestations that BuildKit adds).
func (f *facts) scanIndex(ctx context.Context, m *gatehouse.Manifest, children *int, depth int) (gather.Scan, error) {
	var index struct{ Manifests []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &index); err != nil {
		return unscanned("the index %s cannot be read", m.Digest), nil
	}
	if depth >= nestingMax {
		return unscanned("indexes are nested more than %d deep", nestingMax), nil
	}
	out := gather.Scan{Complete: true, Overlays: []string{gatehouse.OverlayKEV, gatehouse.OverlayEPSS}}
	type place struct {
		id, kind, name, version, path string
		at                            gatehouse.Location
	}
	seen := map[place]int{} // where in out.Findings
	for _, d := range index.Manifests {
		if runsNowhere(d) {
			continue
		}
		if *children++; *children > childrenMax {
			return unscanned("the index holds more than %d images", childrenMax), nil
		}
		child, err := f.content.Manifest(ctx, m.Repo, d.Digest)
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			return unscanned("%s of the index is not in this registry", d.Digest), nil
		}
		if err != nil {
			return gather.Scan{}, err
		}
		scan, err := f.scanManifest(ctx, child, children, depth+1)
		if err != nil {
			return gather.Scan{}, err
		}
		for _, finding := range scan.Findings {
			p := finding.Package
			at := place{id: finding.ID, kind: p.Type, name: p.Name, version: p.Version, path: p.Path}
			if finding.Location != nil {
				at.at = *finding.Location
			}
			switch i, known := seen[at]; {
			case !known:
				seen[at] = len(out.Findings)
				out.Findings = append(out.Findings, finding)
			case finding.Suppressed == nil:
				// What is accepted in one image still counts in another.
				out.Findings[i] = finding
			}
		}
		out.Complete = out.Complete && scan.Complete && scan.Inventory != nil
		out.Overlays = both(out.Overlays, scan.Overlays)
		for kind, reasons := range scan.Partial {
			if out.Partial == nil {
				out.Partial = map[gatehouse.Kind][]string{}
			}
			for _, reason := range reasons {
				out.Partial[kind] = append(out.Partial[kind], d.Digest.Short()+": "+reason)
			}
		}
		for _, reason := range scan.Incomplete {
			out.Incomplete = append(out.Incomplete, d.Digest.Short()+": "+reason)
		}
		if out.FeedAt.IsZero() || scan.FeedAt.Before(out.FeedAt) {
			out.FeedAt = scan.FeedAt
		}
		switch {
		case scan.Inventory == nil:
		case out.Inventory == nil:
			inventory := *scan.Inventory
			out.Inventory = &inventory
		default:
			out.Inventory.Distro = shared(out.Inventory.Distro, scan.Inventory.Distro)
		}
	}
	if out.Inventory == nil {
		out.Complete = false
		out.Incomplete = append(out.Incomplete, "no image of the index has been indexed yet")
		return out, nil
	}
	out.Inventory.Subject, out.Inventory.Complete, out.Inventory.Incomplete = m.Digest, out.Complete, out.Incomplete
	gatehouse.SortFindings(out.Findings)
	return out, nil
}

// shared is what two distributions have in common. Of an index it is what exceptions
// and VEX documents are compared with: one for a distribution must not speak of the
// packages of another.
func shared(a, b gatehouse.Distro) gatehouse.Distro {
	if a.ID != b.ID {
		return gatehouse.Distro{}
	}
	if a.VersionID != b.VersionID {
		a.VersionID, a.Name = "", ""
	}
	if a.Codename != b.Codename {
		a.Codename = ""
	}
	return a
}

// runsNowhere reports whether no node picks the entry: its platform is said to
// be unknown. One without a platform may be picked, and so may one that says it
// in a way that two readers could read differently ("os" and "OS").
func runsNowhere(d gatehouse.Descriptor) bool {
	var p map[string]any
	if json.Unmarshal(d.Platform, &p) != nil || p["os"] != "unknown" || p["architecture"] != "unknown" {
		return false
	}
	for key := range p {
		if lower := strings.ToLower(key); lower != key && (lower == "os" || lower == "architecture") {
			return false
		}
	}
	return true
}

// movedMax is how often a scan is read again because advisories came into force
// meanwhile.
const movedMax = 20

// scanImage reads what the pipeline knows of one image manifest.
func (f *facts) scanImage(ctx context.Context, digest gatehouse.Digest) (scan gather.Scan, err error) {
	for range movedMax {
		if scan, err = f.scanOnce(ctx, digest); !errors.Is(err, errMoved) {
			return scan, err
		}
	}
	return gather.Scan{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the advisories change faster than the image can be read")
}

var errMoved = errors.New("the image or the advisories in force changed meanwhile")

func (f *facts) scanOnce(ctx context.Context, digest gatehouse.Digest) (gather.Scan, error) {
	gen, file, release, err := f.advisories.Acquire(ctx)
	if err != nil {
		return gather.Scan{}, err
	}
	defer release()
	var img db.Image
	var ok bool
	err = f.db.Get(ctx, func(tx *db.Tx) (err error) {
		img, ok, err = tx.ImageByDigest(ctx, digest)
		return err
	})
	if err != nil {
		return gather.Scan{}, err
	}
	if !ok {
		return unscanned("the image has not been indexed yet"), nil
	}
	scan, err := f.kept(ctx, gen, img, file)
	if err != nil {
		return gather.Scan{}, err
	}
	return f.withMalware(ctx, scan, img)
}

// withMalware adds what is known of an image's files by now: it changes without
// the image or the advisories.
func (f *facts) withMalware(ctx context.Context, scan gather.Scan, img db.Image) (gather.Scan, error) {
	var found []gatehouse.Finding
	var partial []string
	err := f.db.Read(ctx, func(tx *db.Tx) (err error) {
		found, partial, err = f.pipeline.Malware(ctx, tx, img)
		return err
	})
	if err != nil {
		return gather.Scan{}, err
	}
	scan.Partial = pipeline.Partial(img)
	if len(partial) > 0 {
		scan.Partial[gatehouse.KindMalware] = partial
	}
	if len(found) > 0 {
		scan.Findings = append(found, scan.Findings...) // the kept list stays as it is
		gatehouse.SortFindings(scan.Findings)
	}
	return scan, nil
}

// kept is the scan without malware, from memory where it is there.
func (f *facts) kept(ctx context.Context, gen db.Generation, img db.Image, file *advisory.File) (gather.Scan, error) {
	digest := img.Digest
	key := scanKey{digest, gen.ID, img.IndexedAt}
	f.mu.Lock()
	scan, known := f.scans[key]
	f.mu.Unlock()
	if known {
		return scan, nil
	}
	scan, err := f.newScan(ctx, gen, img, file)
	if err != nil {
		return gather.Scan{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(scan.Findings) > scanFindingsMax/8 {
		return scan, nil
	}
	if _, again := f.scans[key]; again {
		return scan, nil
	}
	for len(f.scans) >= scansMax || f.held+len(scan.Findings) > scanFindingsMax {
		f.forgetHalf()
	}
	f.held += len(scan.Findings)
	f.scans[key] = scan
	return scan, nil
}

// licenceKey names everything that the licences of an image depend on.
type licenceKey struct {
	digest    gatehouse.Digest
	indexedAt time.Time
}

// licencesOf judges the licences of an image, once: advisories that change do not
// change them.
func (f *facts) licencesOf(ctx context.Context, tx *db.Tx, img db.Image) ([]gatehouse.Finding, error) {
	key := licenceKey{img.Digest, img.IndexedAt}
	f.mu.Lock()
	known, ok := f.licences[key]
	f.mu.Unlock()
	if ok {
		return known, nil
	}
	found, err := f.pipeline.Licences(ctx, tx, img)
	if err != nil || len(found) > scanFindingsMax/8 {
		return found, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	total := len(found)
	for k, list := range f.licences {
		if total += len(list); total > scanFindingsMax || len(f.licences) >= scansMax {
			total -= len(list)
			delete(f.licences, k)
		}
	}
	f.licences[key] = found
	return found, nil
}

// forgetHalf drops half of the scans, any of them, and at least one.
func (f *facts) forgetHalf() {
	drop := len(f.scans)/2 + 1
	for k, scan := range f.scans {
		if drop--; drop < 0 {
			return
		}
		f.held -= len(scan.Findings)
		delete(f.scans, k)
	}
}

// newScan reads the findings of an image, all from one moment in which the
// generation is in force. The inventory names the image, its distribution and its
// layers; the packages stay where they are.
func (f *facts) newScan(ctx context.Context, gen db.Generation, img db.Image, file *advisory.File) (scan gather.Scan, err error) {
	var layers []gatehouse.LayerOrigin
	uncovered, err := pipeline.Uncovered(ctx, img, file)
	if err != nil {
		return scan, err
	}
	err = f.db.Read(ctx, func(tx *db.Tx) error {
		now, _, err := tx.CurrentGeneration(ctx)
		if err != nil {
			return err
		}
		same, _, err := tx.ImageByDigest(ctx, img.Digest)
		if err != nil {
			return err
		}
		if now.ID != gen.ID || !same.IndexedAt.Equal(img.IndexedAt) {
			return errMoved
		}
		if scan.Findings, err = tx.FindingsOfImage(ctx, img); err != nil {
			return err
		}
		licences, err := f.licencesOf(ctx, tx, img)
		if err != nil {
			return err
		}
		if len(licences) > 0 {
			scan.Findings = append(scan.Findings, licences...)
			gatehouse.SortFindings(scan.Findings)
		}
		layers, _, _, err = pipeline.Layers(ctx, tx, img, 1)
		return err
	})
	if err != nil {
		return scan, err
	}
	scan.Incomplete = append(append([]string(nil), img.Reasons...), uncovered...)
	scan.Complete = img.Complete && !img.Failed && len(scan.Incomplete) == 0
	if file != nil {
		scan.FeedAt, scan.Overlays = file.Meta().UpdatedAt, file.Meta().Overlays()
		if err := file.Enrich(ctx, scan.Findings); err != nil {
			return scan, err
		}
	}
	if !img.Failed {
		scan.Inventory = &gatehouse.Inventory{
			Subject: img.Digest, Indexer: img.Indexer, Distro: img.Distro, Layers: layers, Complete: scan.Complete, Incomplete: scan.Incomplete,
		}
	}
	return scan, nil
}
