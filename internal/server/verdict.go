package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// images answers the API's questions about stored images.
type images struct{ *Server }

// verdict is the answer of GET /api/v1/verdicts: what would happen to a Pod
// that runs this image now, and why.
type verdict struct {
	Reference  string               `json:"reference"`
	Digest     gatehouse.Digest     `json:"digest"`
	Verdict    gatehouse.Verdict    `json:"verdict"`
	Reasons    []gatehouse.Reason   `json:"reasons"`
	Policies   policiesMet          `json:"policies"`
	Signatures []gatehouse.Evidence `json:"signatures"`
	Findings   findings             `json:"findings"`
	Database   generation           `json:"database"`
	DecidedAt  time.Time            `json:"decidedAt"`
	// SecondOpinions are what other scanners say of the image. They change nothing.
	SecondOpinions []secondOpinion `json:"secondOpinions"`
	// Attached is what hangs on the image, as it was found when it arrived; Pull what
	// the project asks of pulls.
	Attached []signatureDoc `json:"attached"`
	Pull     pullDoc        `json:"pullPolicy"`
}

type policiesMet struct {
	Digest gatehouse.Digest `json:"digest"`
	Met    []string         `json:"met"`
	Failed []string         `json:"failed"`
}

type findings struct {
	Indexed           bool           `json:"indexed"`
	Complete          bool           `json:"complete"`
	IncompleteReasons []string       `json:"incompleteReasons"`
	Summary           report.Summary `json:"summary"`
	Fixable           report.Summary `json:"fixable"`
	// Kinds sums what was found besides vulnerabilities.
	Kinds      map[gatehouse.Kind]kindSummary `json:"kinds"`
	Suppressed int                            `json:"suppressed"` // by exceptions, of all kinds; not in the summaries
	IndexedAt  time.Time                      `json:"indexedAt,omitzero"`
	MatchedAt  time.Time                      `json:"matchedAt,omitzero"` // when an advisory last changed the summary
}

// Resolve implements api.Images.
func (i images) Resolve(ref gatehouse.Ref) (gatehouse.Repo, error) {
	if !i.facts.isOwn(ref.Registry) {
		return "", gatehouse.Errorf(gatehouse.CodeNotFound, "%s is not in this registry", ref.Registry).
			WithHint("write the reference with this server's own name, one of its hostnames")
	}
	return ref.Repo, nil
}

// Verdict implements api.Images.
func (i images) Verdict(ctx context.Context, ref gatehouse.Ref) (any, error) {
	digest, err := i.facts.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	ref.Digest = digest
	req, err := podOf([]gatehouse.ImageFacts{{Written: ref.String()}})
	if err != nil {
		return nil, err
	}
	set, err := i.policies.Set(ctx)
	if err != nil {
		return nil, err
	}
	known := gather.Facts(ctx, set, req, i.facts.sources())
	d := i.decider.judgeFacts(ctx, set, known)
	v := verdict{
		Reference: ref.String(), Digest: digest, Verdict: d.Verdict, Reasons: d.Reasons, Policies: met(d), DecidedAt: d.At,
		Signatures: []gatehouse.Evidence{},
	}
	for _, img := range known.Images {
		for _, e := range img.Evidence {
			if !slices.ContainsFunc(v.Signatures, func(o gatehouse.Evidence) bool { return o.Artifact == e.Artifact && o.Identity == e.Identity }) {
				v.Signatures = append(v.Signatures, e)
			}
		}
	}
	scan, err := i.facts.Scan(ctx, ref)
	if err != nil {
		return nil, err
	}
	if v.Findings, err = i.findings(ctx, ref, scan); err != nil {
		return nil, err
	}
	if v.SecondOpinions, err = i.opinions.of(ctx, ref.Repo, digest, scan.Findings, false); err != nil {
		return nil, err
	}
	arrived, err := i.signatures(ctx, ref.Repo, "", digest)
	if err != nil {
		return nil, err
	}
	v.Attached, v.Pull = arrived.Signatures, arrived.PullPolicy
	v.Database, err = i.generation(ctx)
	return v, err
}

// podOf is the smallest Pod that runs these images, each as it is written.
func podOf(images []gatehouse.ImageFacts) (gatehouse.Request, error) {
	type object = map[string]any
	containers := make([]object, len(images))
	for i, f := range images {
		containers[i] = object{"name": fmt.Sprintf("image-%d", i), "image": f.Written}
	}
	b, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "verdict", "namespace": "default"},
		"spec": object{"containers": containers},
	})
	return gatehouse.Request{
		UID: "verdict", Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"}, Operation: "CREATE",
		Name: "verdict", Namespace: "default", Object: b, Now: time.Now().UTC(),
	}, err
}

func met(d gatehouse.Decision) policiesMet {
	out := policiesMet{Digest: d.Policies, Met: []string{}, Failed: []string{}}
	for _, r := range d.Reasons {
		if r.Policy != "" && r.Verdict == gatehouse.Deny && !slices.Contains(out.Failed, r.Policy) {
			out.Failed = append(out.Failed, r.Policy)
		}
	}
	for _, r := range d.Reasons {
		if r.Policy != "" && !slices.Contains(out.Failed, r.Policy) && !slices.Contains(out.Met, r.Policy) {
			out.Met = append(out.Met, r.Policy)
		}
	}
	return out
}

// kindSummary is what was found of one kind.
type kindSummary struct {
	report.Summary
	Complete          bool     `json:"complete"`
	IncompleteReasons []string `json:"incompleteReasons"`
}

// kinds are those that are told of besides vulnerabilities, whether there are any
// or not.
var kinds = []gatehouse.Kind{gatehouse.KindSecret, gatehouse.KindMisconfig, gatehouse.KindMalware, gatehouse.KindLicense}

// kindsOf sums a scan by kind.
func kindsOf(scan gather.Scan) map[gatehouse.Kind]kindSummary {
	out := map[gatehouse.Kind]kindSummary{}
	for _, kind := range kinds {
		s := kindSummary{Complete: scan.Complete, IncompleteReasons: []string{}}
		if reasons := scan.Partial[kind]; len(reasons) > 0 {
			s.Complete, s.IncompleteReasons = false, reasons
		}
		for _, f := range scan.Findings {
			if f.Kind == kind && f.Suppressed == nil {
				s.Add(f.Severity)
			}
		}
		out[kind] = s
	}
	return out
}

func vulnerability(f gatehouse.Finding) bool {
	return f.Kind == gatehouse.KindVulnerability || f.Kind == "" // from before kinds
}

func (i images) findings(ctx context.Context, ref gatehouse.Ref, scan gather.Scan) (f findings, err error) {
	f.Indexed, f.Complete, f.IncompleteReasons = scan.Inventory != nil, scan.Complete, scan.Incomplete
	if f.IncompleteReasons == nil {
		f.IncompleteReasons = []string{}
	}
	f.Kinds = kindsOf(scan)
	for _, finding := range scan.Findings {
		if finding.Suppressed != nil {
			f.Suppressed++
			continue
		}
		if !vulnerability(finding) {
			continue
		}
		f.Summary.Add(finding.Severity)
		if finding.Fixable() {
			f.Fixable.Add(finding.Severity)
		}
	}
	// An index has no row of its own.
	var img db.Image
	err = i.db.Get(ctx, func(tx *db.Tx) (err error) {
		img, _, err = tx.ImageByDigest(ctx, ref.Digest)
		return err
	})
	f.IndexedAt, f.MatchedAt = img.IndexedAt, img.MatchedAt
	return f, err
}

// Report implements api.Images: the whole scan report.
func (i images) Report(ctx context.Context, ref gatehouse.Ref) (any, error) {
	digest, err := i.facts.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	ref.Digest = digest
	scan, err := i.facts.Scan(ctx, ref)
	if err != nil {
		return nil, err
	}
	if scan.Inventory == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "there is no report of %s: %s", ref, strings.Join(scan.Incomplete, "; ")).
			WithHint("images are indexed within moments of the push; ask again")
	}
	gen, err := i.generation(ctx)
	if err != nil {
		return nil, err
	}
	target := report.Target{Reference: ref.String(), Digest: digest}
	database := report.Database{Source: gen.source(), UpdatedAt: gen.UpdatedAt, Digest: gen.Digest}
	r := report.New(target, database, *scan.Inventory, scan.Findings, report.Filter{ShowSuppressed: true})
	opinions, err := i.opinions.of(ctx, ref.Repo, digest, scan.Findings, false)
	if err != nil {
		return nil, err
	}
	for _, o := range opinions {
		r.SecondOpinions = append(r.SecondOpinions, o.SecondOpinion)
	}
	r.OS.EOL = match.Ended(scan.Inventory.Distro, time.Now())
	r.OS.EOLDate, _ = match.EOL(scan.Inventory.Distro, time.Now())
	return r, nil
}
