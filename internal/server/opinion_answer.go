package server

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/opinion"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// opinionFindingsMax bounds the findings of another scanner that are compared: of
// all images of an index together.
const opinionFindingsMax = 200_000

// secondOpinion is what another scanner says of an image or index, beside what we
// say.
type secondOpinion struct {
	report.SecondOpinion
	GeneratedAt time.Time           `json:"generatedAt,omitzero"`
	Comparison  *opinion.Comparison `json:"comparison,omitempty"` // in the answer about opinions only

	theirs []opinion.Finding
	known  map[theirKey]bool // of theirs
	images int               // that it was asked about
}

type theirKey struct{ id, pkg, version, source string }

// of compares the opinions on an image with our findings: none, if nobody was
// asked. Those on an index are those on its images together, as its findings are.
// lists adds which findings they are.
func (o *opinions) of(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, ours []gatehouse.Finding, lists bool) ([]secondOpinion, error) {
	left := childrenMax
	images, err := o.imagesOf(ctx, repo, digest, 0, &left)
	if err != nil {
		return nil, err
	}
	var all []*secondOpinion
	for _, image := range images {
		var rows []db.Opinion
		err := o.db.Get(ctx, func(tx *db.Tx) (err error) {
			rows, err = tx.Opinions(ctx, image)
			return err
		})
		if err != nil {
			return nil, err
		}
		of := ""
		if image != digest {
			of = image.Short() + ": "
		}
		for _, row := range rows {
			at := slices.IndexFunc(all, func(s *secondOpinion) bool { return s.Source == row.Source })
			if at < 0 {
				at = len(all)
				all = append(all, &secondOpinion{SecondOpinion: report.SecondOpinion{Source: row.Source, Available: true}, known: map[theirKey]bool{}})
			}
			if err := all[at].add(row, of); err != nil {
				return nil, err
			}
		}
	}
	out := []secondOpinion{}
	for _, s := range all {
		if s.images < len(images) {
			s.miss("not all images of the index have been asked about yet")
		}
		c := opinion.Compare(ours, s.theirs)
		if s.Scanner == "" { // it never answered
			c = opinion.Comparison{}
		}
		s.Both, s.OnlyOurs, s.OnlyTheirs = len(c.Both), len(c.OnlyOurs), len(c.OnlyTheirs)
		if lists && s.Scanner != "" {
			s.Comparison = &c
		}
		out = append(out, *s)
	}
	return out, nil
}

// add adds what was said of one image; of names it, in an index.
func (s *secondOpinion) add(row db.Opinion, of string) error {
	if s.images++; s.images == 1 || row.AskedAt.Before(s.AskedAt) {
		s.AskedAt = row.AskedAt
	}
	if s.images == 1 || row.AnsweredAt.Before(s.AnsweredAt) { // zero: one was never answered
		s.AnsweredAt = row.AnsweredAt
	}
	if row.Error != "" {
		s.miss(of + row.Error)
	}
	if len(row.Doc) == 0 {
		return nil
	}
	var said opinion.Opinion
	if err := json.Unmarshal(row.Doc, &said); err != nil {
		return err
	}
	s.Scanner, s.Version = said.Scanner, said.Version
	if s.GeneratedAt.IsZero() || said.GeneratedAt.Before(s.GeneratedAt) {
		s.GeneratedAt = said.GeneratedAt
	}
	for _, reason := range said.Incomplete {
		s.Incomplete = append(s.Incomplete, of+reason)
	}
	for _, f := range said.Findings {
		key := theirKey{f.ID, f.Package, f.Version, f.Source}
		if s.known[key] {
			continue
		}
		if len(s.theirs) >= opinionFindingsMax {
			s.Incomplete = append(s.Incomplete, of+"it found more than is compared here")
			break
		}
		s.known[key] = true
		s.theirs = append(s.theirs, f)
	}
	return nil
}

// miss notes that not everything was answered; the first reason stays.
func (s *secondOpinion) miss(reason string) {
	if s.Available {
		s.Available, s.Error = false, reason
	}
}

// imagesOf lists the images that an opinion on a manifest is about: itself, or, of
// an index, those that a node could pick and that are here. left bounds what is
// looked at.
func (o *opinions) imagesOf(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, depth int, left *int) ([]gatehouse.Digest, error) {
	m, err := o.content.Manifest(ctx, repo, digest)
	switch {
	case gatehouse.CodeOf(err) == gatehouse.CodeNotFound && depth > 0:
		return nil, nil
	case err != nil:
		return nil, err
	case pipeline.IsImage(m):
		return []gatehouse.Digest{digest}, nil
	case !pipeline.IsIndex(m.MediaType):
		return nil, nil
	}
	var index struct{ Manifests []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &index); err != nil || depth >= nestingMax {
		return nil, nil // its findings say that it cannot be looked at
	}
	var all []gatehouse.Digest
	for _, d := range index.Manifests {
		if runsNowhere(d) {
			continue
		}
		if *left--; *left < 0 {
			break
		}
		list, err := o.imagesOf(ctx, repo, d.Digest, depth+1, left)
		if err != nil {
			return nil, err
		}
		for _, image := range list {
			if !slices.Contains(all, image) {
				all = append(all, image)
			}
		}
	}
	return all, nil
}

// Opinions implements api.Findings.
func (i images) Opinions(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (any, error) {
	scan, err := i.scan(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	list, err := i.opinions.of(ctx, repo, digest, scan.Findings, true)
	return struct {
		Digest   gatehouse.Digest `json:"digest"`
		Opinions []secondOpinion  `json:"opinions"`
	}{digest, list}, err
}
