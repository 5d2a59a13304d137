package server

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/running"
)

const (
	// tellMax bounds the Events of one pass, so that none takes long; the rest comes with
	// the next ones.
	tellMax = 200
	// useEvery is how often it is noted that an image runs.
	useEvery = 6 * time.Hour
)

// tellCluster writes the Events that are due, and notes each that is there. One that was
// written and not noted has the same name the next time.
func (a *runningAudit) tellCluster(ctx context.Context) error {
	if !a.events || a.now().Before(a.tellAt) {
		return nil
	}
	var failed error
	n := 0
	for _, row := range a.rows {
		if row.Told {
			continue
		}
		if n++; n > tellMax || ctx.Err() != nil {
			break
		}
		if err := a.cluster.Tell(ctx, running.Event(row.standing, a.instance)); err != nil {
			failed, a.tellAt = err, a.now().Add(runningRetry)
			continue
		}
		err := a.db.Write(ctx, func(tx *db.Tx) error { return tx.ToldRunning(ctx, row.ID, row.Since) })
		if err != nil {
			return errors.Join(failed, err)
		}
		row.Told = true
		a.metrics.auditTold.Inc()
	}
	return failed
}

// report writes the reports of namespaces in which something has changed; all of them
// where it is not known what is there.
func (a *runningAudit) report(ctx context.Context, touched map[string]bool, all bool) error {
	if a.reports == nil {
		return nil
	}
	now, served := a.now(), a.reports.Served()
	again := !a.reportAt.IsZero() && !now.Before(a.reportAt)
	var failed error
	if all || served != a.served || again && a.lookAgain {
		a.reports.Forget()
		there, err := a.reports.Namespaces(ctx)
		failed, a.lookAgain, a.served = err, err != nil, served
		for _, namespace := range there {
			touched[namespace] = true
		}
		for key := range a.rows {
			touched[key.Namespace] = true
		}
	}
	if again {
		maps.Copy(touched, a.unreported)
		a.reportAt = time.Time{}
	}
	failed = errors.Join(failed, a.writeReports(ctx, touched))
	if failed != nil && a.reportAt.IsZero() {
		a.reportAt = now.Add(runningRetry)
	}
	return failed
}

// writeReports writes the reports of some namespaces, and notes those that it could not.
func (a *runningAudit) writeReports(ctx context.Context, namespaces map[string]bool) (failed error) {
	if len(namespaces) == 0 {
		return nil
	}
	standings := map[string][]running.Standing{}
	for key, row := range a.rows {
		if namespaces[key.Namespace] {
			standings[key.Namespace] = append(standings[key.Namespace], row.standing)
		}
	}
	for namespace := range namespaces {
		var body map[string]any
		if s := standings[namespace]; len(s) > 0 {
			body = running.Report(namespace, s)
		}
		delete(a.unreported, namespace)
		if err := a.reports.Write(ctx, namespace, body); err != nil {
			failed = err
			a.unreported[namespace] = true
		}
	}
	return failed
}

// noteUse notes which images of this registry run: they are indexed again first, and
// looked at with new malware signatures.
func (a *runningAudit) noteUse(ctx context.Context) error {
	now := a.now()
	if now.Sub(a.used) < useEvery {
		return nil
	}
	used := map[gatehouse.Digest]bool{}
	for _, v := range a.cases {
		for _, i := range v.images {
			if ref, err := gatehouse.ParseRef(i.Name); err == nil && i.Digest != "" && a.own(ref.Registry) && len(used) < usedMax {
				used[i.Digest] = true
			}
		}
	}
	err := a.db.Note(ctx, func(tx *db.Tx) error { return tx.NoteUse(ctx, used) })
	if err == nil {
		a.used = now
	}
	return err
}

// figures shows what runs.
func (a *runningAudit) figures() {
	pods := map[gatehouse.Verdict]int{}
	images := map[running.Image]bool{}
	for _, row := range a.rows {
		pods[row.Verdict] += row.Pods
		for _, i := range row.standing.Images {
			images[i] = true
		}
	}
	for _, v := range []gatehouse.Verdict{gatehouse.Deny, gatehouse.Warn, gatehouse.Allow} {
		a.metrics.auditPods.WithLabelValues(v.String()).Set(float64(pods[v]))
	}
	a.metrics.auditImages.Set(float64(len(images)))
	a.metrics.auditAt.Set(float64(a.judged.Unix()))
}

// end takes the figures away: another replica shows them from now on.
func (a *runningAudit) end() {
	a.metrics.auditPods.Reset()
	for _, g := range []interface{ Set(float64) }{a.metrics.auditImages, a.metrics.auditAt, a.metrics.auditStands} {
		g.Set(0)
	}
}
