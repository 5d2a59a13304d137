package server

import (
	"context"
	"encoding/json"
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
	type place struct{ id, kind, name, version, path string }
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
			at := place{finding.ID, p.Type, p.Name, p.Version, p.Path}
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
		for _, reason := range scan.Incomplete {
			out.Incomplete = append(out.Incomplete, d.Digest.Short()+": "+reason)
		}
		if out.FeedAt.IsZero() || scan.FeedAt.Before(out.FeedAt) {
			out.FeedAt = scan.FeedAt
		}
		if out.Inventory == nil && scan.Inventory != nil {
			inventory := *scan.Inventory
			out.Inventory = &inventory
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

// scanImage reads what the pipeline knows of one image manifest.
func (f *facts) scanImage(ctx context.Context, digest gatehouse.Digest) (gather.Scan, error) {
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
	key := scanKey{digest, gen.ID, img.IndexedAt}
	f.mu.Lock()
	scan, known := f.scans[key]
	f.mu.Unlock()
	if known {
		return scan, nil
	}
	if scan, err = f.newScan(ctx, img, file); err != nil {
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

// newScan reads the findings of an image. The inventory names the image and
// its distribution; the packages stay where they are.
func (f *facts) newScan(ctx context.Context, img db.Image, file *advisory.File) (scan gather.Scan, err error) {
	uncovered, err := pipeline.Uncovered(ctx, img, file)
	if err != nil {
		return scan, err
	}
	err = f.db.Read(ctx, func(tx *db.Tx) (err error) {
		scan.Findings, err = tx.FindingsOfImage(ctx, img)
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
			Subject: img.Digest, Indexer: img.Indexer, Distro: img.Distro, Complete: scan.Complete, Incomplete: scan.Incomplete,
		}
	}
	return scan, nil
}
