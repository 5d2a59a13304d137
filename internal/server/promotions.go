package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/report"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// predicatePromotion is the type of the statement that a promotion leaves.
const predicatePromotion = "https://gatehouse.dev/attestation/promotion/v1"

// promoteWait is how long a promotion waits for an image that was pushed a moment
// ago to be indexed.
const promoteWait = 15 * time.Second

// promotions copies images that pass their gates.
type promotions struct{ *Server }

// promotionStatement is the predicate of the statement. docs/promote.md has it.
type promotionStatement struct {
	Source      string           `json:"source"`
	Destination string           `json:"destination"`
	Digest      gatehouse.Digest `json:"digest"`
	Decision    promotionGate    `json:"decision"`
	Findings    promotionScan    `json:"findings"`
	Advisories  promotionFeed    `json:"advisories"`
	PromotedBy  string           `json:"promotedBy"`
	PromotedAt  time.Time        `json:"promotedAt"`
}

type promotionGate struct {
	ID       string            `json:"id"`
	Verdict  gatehouse.Verdict `json:"verdict"`
	Policies []string          `json:"policies"`       // that judged
	Digest   gatehouse.Digest  `json:"policiesDigest"` // of the set
}

type promotionScan struct {
	Complete          bool           `json:"complete"`
	IncompleteReasons []string       `json:"incompleteReasons"`
	Summary           report.Summary `json:"summary"`
	Suppressed        int            `json:"suppressed"`
}

type promotionFeed struct {
	Generation int64            `json:"generation"` // 0: there were none
	Digest     gatehouse.Digest `json:"digest"`
	UpdatedAt  time.Time        `json:"updatedAt,omitzero"`
}

// promotionDoc is the answer of POST /api/v1/promotions and one row of the list.
type promotionDoc struct {
	ID     int64 `json:"id,omitempty"` // absent of a dry run
	DryRun bool  `json:"dryRun,omitempty"`
	// Unchanged: it had been promoted before, and nothing had to be done.
	Unchanged bool `json:"unchanged,omitempty"`
	promotionStatement
	// Previous is what the tag pointed at before; empty where it is new.
	Previous gatehouse.Digest `json:"previous,omitempty"`
	// Attestation is the manifest that carries the signed statement.
	Attestation gatehouse.Digest `json:"attestation,omitempty"`
	// Manifests is how many belong to the image, Attached what hangs on it.
	Manifests int                `json:"manifests"`
	Attached  map[string]int     `json:"attached"`
	Reasons   []gatehouse.Reason `json:"reasons,omitempty"` // of the decision; not in the list
}

// promotion is one promotion under way.
type promotion struct {
	api.Promotion
	actor    gatehouse.Actor
	tree     *content.Tree
	decision gatehouse.Decision
	doc      promotionDoc
}

// Promote implements api.Promotions.
func (p promotions) Promote(ctx context.Context, actor gatehouse.Actor, in api.Promotion) (any, bool, error) {
	in.Source, in.Destination = p.named(in.Source), p.named(in.Destination)
	digest, err := p.facts.Resolve(ctx, in.Source)
	if err != nil {
		return nil, false, err
	}
	in.Source.Digest = digest
	run := promotion{Promotion: in, actor: actor}
	if run.tree, err = p.content.Tree(ctx, in.Source.Repo, digest); err != nil {
		return nil, false, err
	}
	if err := p.indexed(ctx, run.tree); err != nil {
		return nil, false, err
	}
	if err := p.judge(ctx, &run); err != nil {
		return nil, false, err
	}
	if run.decision.Verdict == gatehouse.Deny {
		return nil, false, p.refuse(ctx, &run)
	}
	if in.DryRun {
		err := p.rehearse(ctx, &run)
		return run.doc, false, err
	}
	if err := p.copy(ctx, &run); err != nil {
		return nil, false, err
	}
	p.log.InfoContext(ctx, "promote done", "source", run.doc.Source, "destination", run.doc.Destination, "digest", digest,
		"decision", run.decision.ID, "unchanged", run.doc.Unchanged, "actor", actor.Name)
	return run.doc, !run.doc.Unchanged, nil
}

// named gives a reference without a registry this server's name.
func (p promotions) named(ref gatehouse.Ref) gatehouse.Ref {
	if ref.Registry == "" {
		ref.Registry = p.facts.hosts.names[0]
	}
	return ref
}

// indexed waits a while for images that were pushed a moment ago; the gates say no
// if that is not enough.
func (p promotions) indexed(ctx context.Context, tree *content.Tree) error {
	var images []gatehouse.Digest
	for m := range tree.Manifests() {
		if pipeline.IsImage(m) {
			images = append(images, m.Digest)
		}
	}
	deadline := time.NewTimer(promoteWait)
	defer deadline.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		err := p.db.Read(ctx, func(tx *db.Tx) error {
			for len(images) > 0 {
				if _, ok, err := tx.ImageByDigest(ctx, images[0]); err != nil || !ok {
					return err
				}
				images = images[1:]
			}
			return nil
		})
		if err != nil || len(images) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return nil
		case <-look.C:
		}
	}
}

// judge decides as for a Pod that would run the source, and asks for a whole scan
// besides. What it finds goes into the statement.
func (p promotions) judge(ctx context.Context, run *promotion) error {
	set, err := p.policies.Set(ctx)
	if err != nil {
		return err
	}
	set.Names.Vouch = true // by whatever name it is promoted, it is the same image
	req, err := podOf([]gatehouse.ImageFacts{{Written: run.Source.String()}})
	if err != nil {
		return err
	}
	req.UID = "promotion-" + rand.Text()
	silent, err := set.Silent(req, run.Policies...)
	if err != nil {
		return err
	}
	known := gather.Facts(ctx, set, req, p.facts.sources())
	run.decision = p.decider.judgeFacts(ctx, set, known)
	scan, err := p.facts.Scan(ctx, run.Source)
	if err != nil {
		return err
	}
	run.decision = decide.WithReasons(run.decision, scanGate(run.Source, scan, run.AllowIncomplete)...)
	run.decision = decide.WithReasons(run.decision, silentGate(run.Source, silent)...)
	pulls, err := p.pullGate(ctx, run.Source)
	if err != nil {
		return err
	}
	run.decision = decide.WithReasons(run.decision, pulls...)
	found, err := images(p).findings(ctx, run.Source, scan)
	if err != nil {
		return err
	}
	gen, err := images(p).generation(ctx)
	if err != nil {
		return err
	}
	run.doc.promotionStatement = promotionStatement{
		Source: tagged(run.Source), Destination: tagged(run.Destination), Digest: run.Source.Digest,
		Decision:   promotionGate{ID: run.decision.ID, Verdict: run.decision.Verdict, Policies: met(run.decision).Met, Digest: run.decision.Policies},
		Findings:   promotionScan{Complete: found.Complete, IncompleteReasons: found.IncompleteReasons, Summary: found.Summary, Suppressed: found.Suppressed},
		Advisories: promotionFeed{Generation: gen.ID, Digest: gen.Digest, UpdatedAt: gen.UpdatedAt},
		PromotedBy: run.actor.Name, PromotedAt: req.Now.Truncate(time.Second),
	}
	slices.Sort(run.doc.Decision.Policies)
	run.doc.Reasons = run.decision.Reasons
	run.doc.Manifests, run.doc.Attached = run.tree.Size(), run.tree.Attached()
	return nil
}

// tagged is a reference without its digest.
func tagged(ref gatehouse.Ref) string {
	if ref.Tag == "" {
		return ref.Name()
	}
	return ref.Name() + ":" + ref.Tag
}

// scanGate says no to an image that has not been looked at whole: what no policy
// asks about is promoted unseen otherwise.
func scanGate(ref gatehouse.Ref, scan gather.Scan, allow bool) []gatehouse.Reason {
	if scan.Inventory != nil && scan.Complete {
		return nil
	}
	r := gatehouse.Reason{
		Code: decide.CodeUnscanned, Image: ref.String(), Message: "the image has not been scanned whole: " + strings.Join(scan.Incomplete, "; "),
		Hint: "an administrator's --allow-incomplete promotes it all the same, and the signed statement says so",
	}
	if allow {
		r.Verdict, r.Hint = gatehouse.Warn, ""
	}
	return []gatehouse.Reason{r}
}

// silentGate says no for policies that were named and do not speak of the image: who
// names a policy wants its word.
func silentGate(ref gatehouse.Ref, policies []string) (out []gatehouse.Reason) {
	for _, name := range policies {
		out = append(out, gatehouse.Reason{
			Code: decide.CodeNoMatch, Policy: name, Image: ref.String(), Message: "the policy was named, and does not speak of the image",
			Hint: "name one whose images[].glob matches the image, or leave --policy out: all that match judge in any case",
		})
	}
	return out
}

// pullGate asks what the source's project asks of pulls: what must not be pulled
// there is not pulled elsewhere instead.
func (p promotions) pullGate(ctx context.Context, source gatehouse.Ref) ([]gatehouse.Reason, error) {
	d, policy, err := p.gate.decide(ctx, source.Repo, source.Tag, source.Digest)
	if err != nil || policy.Mode == gatehouse.PullOff || d.Verdict == gatehouse.Allow {
		return nil, err
	}
	why := denial(d, source.Repo, source.Tag, source.Digest)
	r := gatehouse.Reason{Code: "pull-denied", Image: source.String(), Message: "the project of the source has a pull policy: " + why.Message, Hint: why.Hint}
	if d.Verdict == gatehouse.Warn || policy.Mode == gatehouse.PullWarn {
		r.Verdict = gatehouse.Warn
	}
	return []gatehouse.Reason{r}, nil
}

// refuse keeps a decision that denies, and who asked for it.
func (p promotions) refuse(ctx context.Context, run *promotion) error {
	detail, err := json.Marshal(map[string]any{"source": run.doc.Source, "digest": run.doc.Digest, "decision": run.decision.ID, "policies": run.decision.Policies, "dryRun": run.DryRun})
	if err != nil {
		return err
	}
	err = p.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.SaveDecision(ctx, run.decision); err != nil {
			return err
		}
		return tx.AddAudit(ctx, run.actor, "image.promote.denied", run.place(), string(detail))
	})
	if err != nil {
		return err
	}
	return &api.Refused{Decision: run.decision}
}

func (run *promotion) place() string {
	return string(run.Destination.Repo) + ":" + run.Destination.Tag
}

// rehearse keeps the decision of a dry run, and looks at the tag.
func (p promotions) rehearse(ctx context.Context, run *promotion) error {
	run.doc.DryRun = true
	return p.db.Write(ctx, func(tx *db.Tx) error {
		before, err := tx.ManifestByTag(ctx, run.Destination.Repo, run.Destination.Tag)
		switch {
		case err == nil:
			run.doc.Previous = before.Digest
		case gatehouse.CodeOf(err) != gatehouse.CodeNotFound:
			return err
		}
		if err := run.clobbers(run.doc.Previous); err != nil {
			return err
		}
		if run.doc.Previous != "" && run.doc.Previous != run.Source.Digest {
			if err := tx.MayMoveTag(ctx, run.Destination.Repo, run.Destination.Tag); err != nil {
				return err
			}
		}
		return tx.SaveDecision(ctx, run.decision)
	})
}

func (run *promotion) clobbers(old gatehouse.Digest) error {
	if !run.NoClobber || old == "" || old == run.Source.Digest {
		return nil
	}
	return gatehouse.Errorf(gatehouse.CodeConflict, "tag %s of repository %s points at another image, %s", run.Destination.Tag, run.Destination.Repo, old).
		WithHint("choose another tag, or leave --no-clobber out")
}

// copy does all of it in one transaction: image, attachments, statement, records,
// and the tag. Before it commits nobody sees any of it.
func (p promotions) copy(ctx context.Context, run *promotion) error {
	statement, err := p.keys.Attest(ctx, keyPromotion, sign.Image{
		Ref:       gatehouse.Ref{Registry: run.Destination.Registry, Repo: run.Destination.Repo, Digest: run.Source.Digest},
		MediaType: run.tree.Root.MediaType, Size: run.tree.Root.Size,
	}, predicatePromotion, run.doc.promotionStatement, sign.Options{Now: run.doc.PromotedAt})
	if err != nil {
		return err
	}
	var done promotionDoc
	err = p.db.Write(ctx, func(tx *db.Tx) (err error) {
		done = run.doc
		if err := tx.SaveDecision(ctx, run.decision); err != nil {
			return err
		}
		copied, err := p.content.PutTree(ctx, tx, run.actor, run.tree, run.Destination.Repo)
		if err != nil {
			return err
		}
		old, moved, err := p.content.PointTag(ctx, tx, run.actor, run.Destination.Repo, run.Destination.Tag, run.Source.Digest)
		if err != nil {
			return err
		}
		if err := run.clobbers(old); err != nil {
			return err
		}
		done.Previous = old
		if copied.Unchanged() && !moved {
			last, ok, err := tx.LastPromotion(ctx, run.Source.Repo, run.Destination.Repo, run.Destination.Tag, run.Source.Digest)
			if err != nil {
				return err
			}
			if ok && p.attested(ctx, tx, last) {
				done, err = docOf(last)
				done.Unchanged = true
				return err
			}
		}
		put := gatehouse.ManifestPut{Repo: run.Destination.Repo, MediaType: statement.MediaType, Body: statement.Manifest}
		if err := p.content.PutSmall(ctx, tx, run.actor, put, statement.Blobs...); err != nil {
			return err
		}
		if err := p.noteStatement(ctx, tx, keyPromotion, statement); err != nil {
			return err
		}
		done.Attestation = statement.Digest
		done.ID, err = run.record(ctx, tx, done)
		return err
	})
	run.doc = done
	return err
}

// attested reports whether the statement of a promotion is still there.
func (p promotions) attested(ctx context.Context, tx *db.Tx, last db.Promotion) bool {
	_, err := tx.ManifestAt(ctx, last.Destination, last.Attestation)
	return err == nil
}

// record keeps the promotion, and tells of it.
func (run *promotion) record(ctx context.Context, tx *db.Tx, done promotionDoc) (int64, error) {
	done.Reasons = nil // the decision has them
	doc, err := json.Marshal(done)
	if err != nil {
		return 0, err
	}
	id, err := tx.AddPromotion(ctx, db.Promotion{
		Actor: run.actor.Name, Source: run.Source.Repo, Destination: run.Destination.Repo, Tag: run.Destination.Tag,
		Digest: done.Digest, Attestation: done.Attestation, Doc: doc,
	})
	if err != nil {
		return 0, err
	}
	payload, err := json.Marshal(map[string]any{
		"promotion": id, "source": done.Source, "destination": done.Destination, "decision": done.Decision.ID, "attestation": done.Attestation,
	})
	if err != nil {
		return 0, err
	}
	if err := tx.AddEvent(ctx, gatehouse.Event{
		Type: gatehouse.EventImagePromoted, Actor: run.actor.Name, Repo: run.Destination.Repo, Tag: run.Destination.Tag, Digest: done.Digest, Payload: payload,
	}); err != nil {
		return 0, err
	}
	return id, tx.AddAudit(ctx, run.actor, "image.promote", run.place(), string(doc))
}

func docOf(p db.Promotion) (doc promotionDoc, err error) {
	err = json.Unmarshal(p.Doc, &doc)
	doc.ID = p.ID
	return doc, err
}

// List implements api.Promotions.
func (p promotions) List(ctx context.Context, f api.PromotionFilter, before int64, n int, may func(gatehouse.Repo) bool) (any, error) {
	var rows []db.Promotion
	err := p.db.Get(ctx, func(tx *db.Tx) (err error) {
		rows, err = tx.Promotions(ctx, db.PromotionFilter(f), before, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := struct {
		Promotions []promotionDoc `json:"promotions"`
		Next       int64          `json:"next,omitempty"` // before, to go on
	}{Promotions: []promotionDoc{}}
	for _, row := range rows {
		if !may(row.Destination) {
			continue
		}
		doc, err := docOf(row)
		if err != nil {
			return nil, err
		}
		out.Promotions = append(out.Promotions, doc)
	}
	if len(rows) == n && n > 0 {
		out.Next = rows[len(rows)-1].ID
	}
	return out, nil
}

// Key implements api.Promotions.
func (p promotions) Key(ctx context.Context) ([]byte, error) { return p.keys.Public(ctx, keyPromotion) }

// ScanKey implements api.Promotions.
func (p promotions) ScanKey(ctx context.Context) ([]byte, error) {
	return p.keys.Public(ctx, keyScanner)
}
