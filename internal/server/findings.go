package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// reposMax bounds the repositories that are named of one image.
const reposMax = 100

// Places implements api.Findings.
func (i images) Places(ctx context.Context, digest gatehouse.Digest, n int) (out []gatehouse.Repo, err error) {
	var places []db.Place
	err = i.db.Get(ctx, func(tx *db.Tx) (err error) {
		places, err = tx.Places(ctx, digest, n)
		return err
	})
	for _, p := range places {
		out = append(out, p.Repo)
	}
	return out, err
}

// imageFindings is the answer of GET /api/v1/images/DIGEST/findings.
type imageFindings struct {
	Digest            gatehouse.Digest               `json:"digest"`
	Indexed           bool                           `json:"indexed"`
	Complete          bool                           `json:"complete"`
	IncompleteReasons []string                       `json:"incompleteReasons"`
	Database          generation                     `json:"database"`
	Summary           report.Summary                 `json:"summary"` // of vulnerabilities
	Kinds             map[gatehouse.Kind]kindSummary `json:"kinds"`
	Layers            []gatehouse.LayerOrigin        `json:"layers"`
	Findings          []report.Finding               `json:"findings"`
	Next              int                            `json:"next,omitempty"` // the "after" of the next page
}

// Findings implements api.Findings.
func (i images) Findings(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, f api.FindingFilter, from, n int) (any, error) {
	scan, err := i.scan(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	out := imageFindings{
		Digest: digest, Indexed: scan.Inventory != nil, Complete: scan.Complete, IncompleteReasons: append([]string{}, scan.Incomplete...),
		Kinds: kindsOf(scan), Layers: []gatehouse.LayerOrigin{}, Findings: []report.Finding{},
	}
	if out.Database, err = i.generation(ctx); err != nil {
		return nil, err
	}
	if scan.Inventory == nil {
		return out, nil
	}
	out.Layers = append(out.Layers, scan.Inventory.Layers...)
	var listed []gatehouse.Finding
	for _, finding := range scan.Findings {
		if vulnerability(finding) && finding.Suppressed == nil {
			out.Summary.Add(finding.Severity)
		}
		if (f.Kind == "" || f.Kind == finding.Kind) && (f.Severity == nil || *f.Severity == finding.Severity) {
			listed = append(listed, finding)
		}
	}
	page := listed[min(from, len(listed)):min(from+n, len(listed))]
	if from+n < len(listed) {
		out.Next = from + n
	}
	out.Findings = report.New(report.Target{Digest: digest}, report.Database{}, *scan.Inventory, page, report.Filter{ShowSuppressed: true}).Findings
	return out, nil
}

// scan is what is known of an image in a repository of ours.
func (i images) scan(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (scan gather.Scan, err error) {
	m, err := i.content.Manifest(ctx, repo, digest)
	if err != nil {
		return scan, err
	}
	children := 0
	return i.facts.scanManifest(ctx, m, &children, 0)
}

// image finds the row of an image manifest.
func (i images) image(ctx context.Context, tx *db.Tx, digest gatehouse.Digest) (db.Image, error) {
	img, ok, err := tx.ImageByDigest(ctx, digest)
	if err == nil && !ok {
		err = gatehouse.Errorf(gatehouse.CodeNotFound, "%s is not indexed, or no image to run", digest).
			WithHint("images are indexed within moments of the push; of an index, ask for one of its images")
	}
	return img, err
}

// episode is one finding and the time in which an image was known to have it.
type episode struct {
	ID        string             `json:"id"`
	Kind      gatehouse.Kind     `json:"kind"`
	Severity  gatehouse.Severity `json:"severity"`
	Package   string             `json:"package,omitempty"`
	Version   string             `json:"version,omitempty"`
	Path      string             `json:"path,omitempty"`
	FirstSeen time.Time          `json:"firstSeen"`
	GoneAt    time.Time          `json:"goneAt,omitzero"` // zero: it is still there
}

// History implements api.Findings.
func (i images) History(ctx context.Context, _ gatehouse.Repo, digest gatehouse.Digest, at time.Time) (any, error) {
	out := struct {
		Digest    gatehouse.Digest `json:"digest"`
		IndexedAt time.Time        `json:"indexedAt"` // for the first time
		Findings  []episode        `json:"findings"`
	}{Digest: digest, Findings: []episode{}}
	add := func(id string, kind gatehouse.Kind, s gatehouse.Severity, p gatehouse.Package, from, to time.Time) {
		if !at.IsZero() && (from.After(at) || !to.IsZero() && !to.After(at)) {
			return
		}
		out.Findings = append(out.Findings, episode{id, kind, s, p.Name, p.Version, p.Path, from, to})
	}
	err := i.db.Read(ctx, func(tx *db.Tx) error {
		img, err := i.image(ctx, tx, digest)
		if err != nil {
			return err
		}
		out.IndexedAt = img.FirstIndexedAt
		now, err := tx.FindingsOfImage(ctx, img)
		if err != nil {
			return err
		}
		licences, err := i.facts.licencesOf(ctx, tx, img)
		if err != nil {
			return err
		}
		files, _, err := i.pipeline.Malware(ctx, tx, img)
		if err != nil {
			return err
		}
		for _, f := range slices.Concat(now, licences, files) {
			add(f.ID, f.Kind, f.Severity, f.Package, f.FirstSeen, time.Time{})
		}
		gone, err := tx.GoneFromImage(ctx, img)
		for _, g := range gone {
			add(g.Vuln, gatehouse.KindVulnerability, g.Severity, g.Package, g.From, g.To)
		}
		return err
	})
	slices.SortStableFunc(out.Findings, func(a, b episode) int {
		return cmp.Or(a.FirstSeen.Compare(b.FirstSeen), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Package, b.Package), cmp.Compare(a.Path, b.Path))
	})
	return out, err
}

// Base implements api.Findings.
func (i images) Base(ctx context.Context, _ gatehouse.Repo, digest gatehouse.Digest, may func(gatehouse.Repo) bool) (any, error) {
	out := struct {
		Digest gatehouse.Digest        `json:"digest"`
		Layers []gatehouse.LayerOrigin `json:"layers"`
		Of     int                     `json:"baseLayers"` // how many of them are another stored image
		Images []affectedImage         `json:"images"`
	}{Digest: digest, Layers: []gatehouse.LayerOrigin{}, Images: []affectedImage{}}
	err := i.db.Read(ctx, func(tx *db.Tx) error {
		img, err := i.image(ctx, tx, digest)
		if err != nil {
			return err
		}
		layers, of, bases, err := pipeline.Layers(ctx, tx, img, reposMax)
		if err != nil {
			return err
		}
		out.Layers, out.Of = append(out.Layers, layers...), of
		out.Images, err = i.named(ctx, tx, bases, may)
		return err
	})
	return out, err
}

// affectedImage is an image in a list.
type affectedImage struct {
	Digest       gatehouse.Digest `json:"digest"`
	Repositories []gatehouse.Repo `json:"repositories"` // those that the one who asks may read, 100 at most
}

// named adds the repositories; an image in none that may be seen is left out.
func (i images) named(ctx context.Context, tx *db.Tx, list []db.Affected, may func(gatehouse.Repo) bool) ([]affectedImage, error) {
	out := []affectedImage{}
	for _, a := range list {
		places, err := tx.Places(ctx, a.Digest, reposMax)
		if err != nil {
			return nil, err
		}
		one := affectedImage{Digest: a.Digest}
		for _, p := range places {
			if may(p.Repo) {
				one.Repositories = append(one.Repositories, p.Repo)
			}
		}
		if len(one.Repositories) > 0 {
			out = append(out, one)
		}
	}
	return out, nil
}

// Affected implements api.Findings.
func (i images) Affected(ctx context.Context, q api.Affected, after int64, n int, may func(gatehouse.Repo) bool) (any, error) {
	out := struct {
		Images []affectedImage `json:"images"`
		Next   int64           `json:"next,omitempty"`
	}{}
	ids, err := i.namesOf(ctx, q.Vulnerability)
	if err != nil {
		return nil, err
	}
	err = i.db.Read(ctx, func(tx *db.Tx) (err error) {
		var list []db.Affected
		switch {
		case q.Layer != "":
			list, err = tx.ImagesWithLayer(ctx, q.Layer, after, n)
		case q.Event != 0:
			list, err = eventImages(ctx, tx, q.Event, after, n)
		default:
			list, err = tx.ImagesWithVulnerability(ctx, ids, after, n)
		}
		if err != nil {
			return err
		}
		if len(list) == n {
			out.Next = list[n-1].ID
		}
		out.Images, err = i.named(ctx, tx, list, may)
		return err
	})
	return out, err
}

// namesMax bounds the names of one flaw.
const namesMax = 50

// namesOf lists the ids that findings of a flaw may have: the given one, and those
// that the advisories in force know it by.
func (i images) namesOf(ctx context.Context, id string) ([]string, error) {
	out := []string{id}
	if id == "" {
		return nil, nil
	}
	_, file, release, err := i.facts.advisories.Acquire(ctx)
	if err != nil || file == nil {
		return out, err
	}
	defer release()
	list, err := namedIn(ctx, file, id)
	for _, a := range list {
		for _, name := range append([]string{a.ID}, append(a.Aliases, a.Upstream...)...) {
			// A distribution's advisory covers many flaws, and its findings have
			// their ids; a CVE is nobody's alias but its own.
			if !slices.Contains(out, name) && len(out) < namesMax && (a.ID == id || !strings.HasPrefix(id, "CVE-")) {
				out = append(out, name)
			}
		}
	}
	return out, err
}

func namedIn(ctx context.Context, file *advisory.File, id string) ([]gatehouse.Advisory, error) {
	list, err := file.Named(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", id, err)
	}
	return list, nil
}

// eventImages lists the images that show the package of an event, or have its
// layer.
func eventImages(ctx context.Context, tx *db.Tx, seq, after int64, n int) ([]db.Affected, error) {
	e, err := tx.Event(ctx, seq)
	if err != nil {
		return nil, err
	}
	var about struct {
		PackageID    int64
		Distribution string
		LayerID      int64
	}
	switch e.Type {
	case gatehouse.EventVulnNew, gatehouse.EventVulnFixed, gatehouse.EventMalwareFound:
	default:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "event %d is %s, which speaks of no package and no layer", seq, e.Type)
	}
	if err := json.Unmarshal(e.Payload, &about); err != nil {
		return nil, fmt.Errorf("couldn't read event %d: %w", seq, err)
	}
	if e.Type == gatehouse.EventMalwareFound {
		return tx.ImagesWithLayerRow(ctx, about.LayerID, after, n)
	}
	return tx.ImagesWithPackage(ctx, about.PackageID, about.Distribution, after, n)
}

// eventDoc is an event as the API shows it.
type eventDoc struct {
	Seq        int64               `json:"seq"`
	Type       gatehouse.EventType `json:"type"`
	At         time.Time           `json:"at"`
	Actor      string              `json:"actor,omitempty"`
	Repository gatehouse.Repo      `json:"repository,omitempty"`
	Tag        string              `json:"tag,omitempty"`
	Digest     gatehouse.Digest    `json:"digest,omitempty"`
	Payload    json.RawMessage     `json:"payload,omitempty"`
	// Images is where the images are listed that the event speaks of.
	Images string `json:"images,omitempty"`
}

// Events implements api.Findings. Next is the number of the last one that was
// looked at, whether it may be shown or not.
func (i images) Events(ctx context.Context, after int64, n int, may func(gatehouse.Repo) bool) (any, error) {
	out := struct {
		Events []eventDoc `json:"events"`
		Next   int64      `json:"next"`
	}{Events: []eventDoc{}, Next: after}
	var list []gatehouse.Event
	err := i.db.Get(ctx, func(tx *db.Tx) (err error) {
		list, err = tx.Events(ctx, after, n)
		return err
	})
	for _, e := range list {
		out.Next = e.Seq
		if e.Repo != "" && !may(e.Repo) || e.Type == gatehouse.EventRunningChanged && !i.mayHear(e, may) {
			continue
		}
		d := eventDoc{Seq: e.Seq, Type: e.Type, At: e.At, Actor: e.Actor, Repository: e.Repo, Tag: e.Tag, Digest: e.Digest, Payload: e.Payload}
		if !json.Valid(d.Payload) {
			d.Payload = nil
		}
		switch e.Type {
		case gatehouse.EventVulnNew, gatehouse.EventVulnFixed, gatehouse.EventMalwareFound:
			d.Images = fmt.Sprintf("/api/v1/images?event=%d", e.Seq)
		}
		out.Events = append(out.Events, d)
	}
	return out, err
}
