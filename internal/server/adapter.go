package server

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/adapter"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/sign/seal"
)

// jobAdapter is one scan for another registry.
const jobAdapter = "adapter"

const (
	adapterWorkers    = 2 // scans at once, beside the workers that pushes wait for
	adapterAttempts   = 4
	adapterBackoff    = 2 * time.Second
	adapterScanMax    = 30 * time.Minute
	adapterWaitingMax = 5000           // scans that wait; Harbor asks for all of its images at once
	adapterRowsMax    = 20_000         // scans that are kept
	adapterBytesMax   = 4 << 30        // of their reports, packed
	adapterKeep       = 24 * time.Hour // how long
	// adapterLayersKeep is how long the analyses of layers are kept that no scan
	// has needed: Harbor's scans of everything come once a day to once a month.
	adapterLayersKeep = 35 * 24 * time.Hour
)

// reportVulnerabilities is the kind of the report of vulnerabilities; those of
// bills are their media types.
const reportVulnerabilities = "vulnerabilities"

// adapterScans implements adapter.Scans: requests are rows and jobs, so that they
// survive a restart and any replica does them.
type adapterScans struct {
	db         *db.DB
	advisories *pipeline.Advisories
	pipeline   *pipeline.Pipeline
	transport  http.RoundTripper
	registries []string // URLs without a path, lower case
	box        seal.Box // of credentials, for the scan that they belong to
	version    string
	log        *slog.Logger
	now        func() time.Time
}

// openAdapter makes the scanner for others; nil where it is off.
func (s *Server) openAdapter() error {
	if !s.cfg.ScannerAdapter {
		return nil
	}
	token, err := s.cfg.AdapterToken()
	if err != nil {
		return err
	}
	// What waits in the database opens with a setting: a copy of it alone opens nothing.
	key, err := hkdf.Key(sha256.New, []byte(token), nil, "gatehouse scanner adapter credentials v1", seal.KeySize)
	if err != nil {
		return err
	}
	box, err := seal.New(key)
	if err != nil {
		return err
	}
	s.adapter = &adapterScans{
		db: s.db, advisories: s.advisories, pipeline: s.pipeline, transport: s.trace.transport(s.egress.Transport()),
		registries: s.cfg.AdapterRegistries(), box: box, version: version(), log: s.log, now: s.now,
	}
	s.adapterHandler = adapter.New(adapter.Options{Scans: s.adapter, Token: token, Version: version(), Log: s.log})
	return nil
}

// adapterJobs is the queue of scans for others.
func (s *Server) adapterJobs() *job.Queue {
	return job.New(s.db, job.Options{
		Log: s.log, Workers: adapterWorkers, AttemptsMax: adapterAttempts, BackoffMin: adapterBackoff,
		GaveUp: map[string]job.GaveUp{jobAdapter: s.adapter.gaveUp},
	})
}

// UpdatedAt implements adapter.Scans.
func (a *adapterScans) UpdatedAt(ctx context.Context) (time.Time, error) {
	_, file, release, err := a.advisories.Acquire(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer release()
	if file == nil {
		return time.Time{}, nil
	}
	return file.Meta().UpdatedAt, nil
}

// adapterJob is what is stored of a request, but for its credentials.
type adapterJob struct {
	Registry        string           `json:"registry"`
	Repo            gatehouse.Repo   `json:"repo"`
	Artifact        adapter.Artifact `json:"artifact"`
	Vulnerabilities bool             `json:"vulnerabilities"`
	SBOMs           []string         `json:"sboms"`
}

// Accept implements adapter.Scans.
func (a *adapterScans) Accept(ctx context.Context, r adapter.Request) (string, error) {
	if !slices.Contains(a.registries, r.Registry.String()) {
		return "", gatehouse.Errorf(gatehouse.CodeDenied, "registry.url: %s may not be read", r.Registry).
			WithHint("the setting scanner-adapter-registries lists those that may")
	}
	request, err := json.Marshal(adapterJob{r.Registry.String(), r.Repo, r.Artifact, r.Vulnerabilities, r.SBOMs})
	if err != nil {
		return "", err
	}
	id := rand.Text()
	payload, err := json.Marshal(id)
	if err != nil {
		return "", err
	}
	scan := db.AdapterScan{ID: id, Request: request, Sealed: a.box.Seal([]byte(r.Authorization), []byte(id))}
	return id, a.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.AddAdapterScan(ctx, scan, adapterWaitingMax); err != nil {
			return err
		}
		return job.Enqueue(ctx, tx, jobAdapter, id, payload, tx.Now())
	})
}

// Report implements adapter.Scans.
func (a *adapterScans) Report(ctx context.Context, id, sbom string) (doc []byte, err error) {
	kind := sbom
	if kind == "" {
		kind = reportVulnerabilities
	}
	err = a.db.Read(ctx, func(tx *db.Tx) error {
		scan, err := tx.AdapterScan(ctx, id)
		if err != nil {
			return err
		}
		switch scan.State {
		case db.ScanDone:
		case db.ScanFailed:
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "the scan failed: %s", scan.Error)
		default:
			return adapter.ErrRunning
		}
		var ok bool
		if doc, ok, err = tx.AdapterReport(ctx, id, kind); err == nil && !ok {
			err = gatehouse.Errorf(gatehouse.CodeInvalid, "the scan was not asked for this report")
		}
		return err
	})
	return doc, err
}

// run does one scan. It may be run again after a crash: what it stores is a
// function of the image and the advisories in force.
func (a *adapterScans) run(ctx context.Context, j *job.Job) error {
	var id string
	if err := json.Unmarshal(j.Payload, &id); err != nil {
		return job.Permanent(err)
	}
	var scan db.AdapterScan
	err := a.db.Read(ctx, func(tx *db.Tx) (err error) {
		scan, err = tx.AdapterScan(ctx, id)
		return err
	})
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound || err == nil && scan.State != db.ScanWaits {
		return nil // forgotten, or done by a worker that died before it could say so
	}
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, adapterScanMax)
	defer cancel()
	reports, err := a.scan(bounded, scan)
	if ctx.Err() != nil {
		return context.Cause(ctx) // the server stops: another one does it
	}
	if err != nil && !permanent(err) && j.Attempts < adapterAttempts {
		return err
	}
	reason := ""
	if err != nil {
		a.log.WarnContext(ctx, "scan for another registry failed", "scan", id, "error", err)
		reason = reasonOf(err)
	}
	return a.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.FinishAdapterScan(ctx, id, reason, reports); err != nil {
			return err
		}
		return j.Finish(ctx, tx)
	})
}

// gaveUp ends a scan whose job failed for good without a word of its own: whoever
// waits for the report is told, and may ask for a new scan.
func (a *adapterScans) gaveUp(ctx context.Context, tx *db.Tx, j db.Job, reason error) error {
	var id string
	if err := json.Unmarshal(j.Payload, &id); err != nil {
		return nil // no scan of ours
	}
	return tx.FinishAdapterScan(ctx, id, givenUp(j, reason), nil)
}

// givenUp is what those who asked may know of a job that failed for good.
func givenUp(j db.Job, reason error) string {
	if errors.Is(reason, job.ErrDied) {
		return fmt.Sprintf("the process that did it ended in each of %d attempts", j.Attempts-1) // this one did not begin
	}
	return reasonOf(reason)
}

// permanent reports whether trying again soon cannot help.
func permanent(err error) bool {
	switch gatehouse.CodeOf(err) {
	case gatehouse.CodeUnavailable, gatehouse.CodeTooMany, gatehouse.CodeInternal, "":
		return false
	}
	return true
}

// reasonOf is what those who asked may know of a failure.
func reasonOf(err error) string {
	const reasonMax = 500
	reason := err.Error()
	if gatehouse.CodeOf(err) == gatehouse.CodeInternal {
		reason = "something broke inside; the log has the details"
	}
	if hint := gatehouse.HintOf(err); hint != "" {
		reason += " (" + hint + ")"
	}
	return strings.ToValidUTF8(reason[:min(len(reason), reasonMax)], "")
}

// sweep forgets scans that are over, and layers that nobody scans any more.
func (a *adapterScans) sweep(ctx context.Context) error {
	for n := 1; n > 0; {
		err := a.db.Write(ctx, func(tx *db.Tx) (err error) {
			if err := tx.LeaveLayers(ctx, tx.Now().Add(-adapterLayersKeep)); err != nil {
				return err
			}
			n, err = tx.ForgetAdapterScans(ctx, tx.Now().Add(-adapterKeep), adapterRowsMax, adapterBytesMax)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
