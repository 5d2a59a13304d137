package server

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/running"
)

const (
	// runningPage is how many rows are read or written at once.
	runningPage = 500
	// runningReasonsMax bounds the reasons that are kept of one verdict.
	runningReasonsMax = 50
	// decisionAgain is how old a kept decision may be before the next one takes its place,
	// so that it can be explained as long as it counts.
	decisionAgain = decisionAge / 2
)

// runningRow is a row with what it says, and what was decided of it.
type runningRow struct {
	db.Running
	standing  running.Standing
	decidedAt time.Time       // of the decision that is kept
	verdict   *runningVerdict // that it was made of; nil: it was read
}

// runningDoc is what a row says beside its columns.
type runningDoc struct {
	APIVersion string             `json:"apiVersion"`
	UID        string             `json:"uid"`
	Unknown    bool               `json:"unknown,omitempty"`
	Images     []running.Image    `json:"images"`
	Reasons    []gatehouse.Reason `json:"reasons"`
	Decision   string             `json:"decision"`
	DecidedAt  time.Time          `json:"decidedAt"`
}

// rowOf reads a row.
func rowOf(r db.Running) (*runningRow, error) {
	var doc runningDoc
	if err := json.Unmarshal([]byte(r.Doc), &doc); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInternal, "couldn't read what runs in %s: %w", r.Namespace, err)
	}
	return &runningRow{Running: r, decidedAt: doc.DecidedAt, standing: running.Standing{
		Workload: running.Workload{APIVersion: doc.APIVersion, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, UID: doc.UID},
		Pods:     r.Pods, Images: doc.Images, Verdict: r.Verdict, Unknown: doc.Unknown, Reasons: doc.Reasons, Decision: doc.Decision, Since: r.Since,
	}}, nil
}

// read reads the rows, once: only whoever leads writes them.
func (a *runningAudit) read(ctx context.Context) error {
	if a.rows != nil {
		return nil
	}
	rows := map[db.RunningKey]*runningRow{}
	for after := int64(0); ; {
		var page []db.Running
		err := a.db.Get(ctx, func(tx *db.Tx) (err error) {
			page, err = tx.Running(ctx, db.RunningFilter{After: after}, runningPage)
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range page {
			row, err := rowOf(r)
			if err != nil {
				return err
			}
			rows[r.RunningKey], after = row, r.ID
		}
		if len(page) < runningPage {
			a.rows = rows
			return nil
		}
	}
}

// objections are the reasons that speak against what runs. That something was known from
// before only is no such reason.
func objections(all []gatehouse.Reason) []gatehouse.Reason {
	out := []gatehouse.Reason{}
	for _, r := range all {
		if r.Verdict != gatehouse.Allow && r.Code != decide.CodeStaleFacts && len(out) < runningReasonsMax {
			r.Evidence = nil
			out = append(out, r)
		}
	}
	return out
}

// runningChange is a row that has to be written.
type runningChange struct {
	row      *runningRow
	decision *gatehouse.Decision // to be kept; nil: it is
	before   *gatehouse.Verdict  // to be told of; nil with tell: nothing was known
	tell     bool
}

// tell writes what became of what runs: rows with their events, Events in the cluster,
// reports.
func (a *runningAudit) tell(ctx context.Context, cases map[runningCase]casePods, due dueCases) error {
	changes, gone, err := a.changes(cases)
	if err != nil {
		return err
	}
	touched := map[string]bool{}
	for _, c := range changes {
		touched[c.row.Namespace] = true
	}
	for _, key := range gone {
		touched[key.Namespace] = true
	}
	if err := a.write(ctx, changes, gone); err != nil {
		return err
	}
	for _, v := range a.cases {
		v.decision.Tree = nil // it is kept with the decision
	}
	if due.all || len(touched) > 0 {
		a.figures()
	}
	return errors.Join(a.noteUse(ctx), a.tellCluster(ctx), a.report(ctx, touched, due.all))
}

// changes compares the verdicts with the rows.
func (a *runningAudit) changes(cases map[runningCase]casePods) (changes []runningChange, gone []db.RunningKey, err error) {
	now := a.now().UTC()
	there := map[db.RunningKey]bool{}
	for c, workloads := range cases {
		v := a.cases[c]
		template := c.template.Digest()
		for w, n := range workloads {
			key := db.RunningKey{Namespace: w.Namespace, Kind: w.Kind, Name: w.Name, Template: template}
			there[key] = true
			old := a.rows[key]
			if old != nil && old.verdict == v && old.Pods == n && old.standing.Workload == w {
				continue
			}
			change, err := a.compare(old, key, w, n, v, now)
			if err != nil {
				return nil, nil, err
			}
			if old != nil && change.row.Running.Doc == old.Doc && old.Pods == n && old.Since.Equal(change.row.Since) {
				old.verdict = v
				continue
			}
			changes = append(changes, change)
		}
	}
	for key := range a.rows {
		if !there[key] {
			gone = append(gone, key)
		}
	}
	return changes, gone, nil
}

// compare makes the row of a workload. old is the one that there is, or nil.
func (a *runningAudit) compare(old *runningRow, key db.RunningKey, w running.Workload, pods int, v *runningVerdict, now time.Time) (c runningChange, err error) {
	s := running.Standing{
		Workload: w, Pods: pods, Images: v.images, Verdict: v.decision.Verdict, Unknown: v.unknown,
		Reasons: objections(v.decision.Reasons), Decision: v.decision.ID, Since: now,
	}
	row := &runningRow{decidedAt: now, verdict: v}
	c = runningChange{row: row, decision: &v.decision}
	switch {
	case old == nil:
		// That all is well is news to nobody, and what is not known yet is none.
		c.tell = s.Verdict != gatehouse.Allow && !s.Unknown
		row.Told = !c.tell
	case v.unknown && !old.standing.Unknown: // what was known before stands
		s = old.standing
		s.Workload, s.Pods = w, pods
		row.Told, row.decidedAt, c.decision = old.Told, old.decidedAt, nil
	case old.standing.Key() != s.Key():
		was := old.Verdict
		c.tell, c.before = !s.Unknown && (!old.standing.Unknown || s.Verdict != gatehouse.Allow), &was
		row.Told = !c.tell
	default:
		s.Since, row.Told = old.Since, old.Told
		if now.Sub(old.decidedAt) < decisionAgain {
			s.Decision, row.decidedAt, c.decision = old.standing.Decision, old.decidedAt, nil
		}
	}
	row.standing = s
	row.Running = db.Running{RunningKey: key, Pods: pods, Verdict: s.Verdict, Since: s.Since, Told: row.Told}
	if old != nil {
		row.ID = old.ID
	}
	for _, i := range s.Images {
		row.Images = append(row.Images, i.Digest)
	}
	b, err := json.Marshal(runningDoc{w.APIVersion, w.UID, s.Unknown, s.Images, s.Reasons, s.Decision, row.decidedAt})
	row.Doc = string(b)
	return c, err
}

// write writes rows and their events, some at a time. What is written is known from then
// on; the rest is made again by the next pass.
func (a *runningAudit) write(ctx context.Context, changes []runningChange, gone []db.RunningKey) error {
	for part := range slices.Chunk(changes, runningPage) {
		ids := make([]int64, len(part))
		err := a.db.Write(ctx, func(tx *db.Tx) error {
			kept := map[string]bool{}
			for i, c := range part {
				var err error
				if ids[i], err = tx.SaveRunning(ctx, c.row.Running); err != nil {
					return err
				}
				if c.decision != nil && !kept[c.decision.ID] {
					kept[c.decision.ID] = true
					if err := tx.SaveDecision(ctx, *c.decision); err != nil {
						return err
					}
				}
				if !c.tell {
					continue
				}
				event, err := runningEvent(c)
				if err != nil {
					return err
				}
				if err := tx.AddEvent(ctx, event); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i, c := range part {
			c.row.ID = ids[i]
			a.rows[c.row.RunningKey] = c.row
		}
	}
	for part := range slices.Chunk(gone, runningPage) {
		err := a.db.Write(ctx, func(tx *db.Tx) error {
			for _, key := range part {
				if err := tx.DeleteRunning(ctx, a.rows[key].ID); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, key := range part {
			delete(a.rows, key)
		}
	}
	return nil
}

// runningPayload is what an event tells of a workload whose verdict is another one.
type runningPayload struct {
	Namespace  string             `json:"namespace"`
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	Name       string             `json:"name"`
	Pods       int                `json:"pods"`
	Images     []running.Image    `json:"images"`
	Before     string             `json:"before,omitempty"` // empty: it was not known
	Verdict    gatehouse.Verdict  `json:"verdict"`
	Reasons    []gatehouse.Reason `json:"reasons"`
	Decision   string             `json:"decision"`
}

// payloadReasonsMax bounds the reasons of one event.
const payloadReasonsMax = 10

func runningEvent(c runningChange) (gatehouse.Event, error) {
	s := c.row.standing
	p := runningPayload{
		Namespace: s.Workload.Namespace, APIVersion: s.Workload.APIVersion, Kind: s.Workload.Kind, Name: s.Workload.Name, Pods: s.Pods,
		Images: s.Images, Verdict: s.Verdict, Reasons: s.Reasons[:min(len(s.Reasons), payloadReasonsMax)], Decision: s.Decision,
	}
	if c.before != nil {
		p.Before = c.before.String()
	}
	e := gatehouse.Event{Type: gatehouse.EventRunningChanged, Actor: gatehouse.System("running").Name}
	if len(s.Images) == 1 {
		e.Digest = s.Images[0].Digest
	}
	var err error
	e.Payload, err = json.Marshal(p)
	return e, err
}
