package server

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// coverageAge is how long the figures stand that are summed over all blobs.
const coverageAge = 5 * time.Minute

var (
	descGCTasks     = desc("gc_tasks", "Reviews of what may be garbage: due now, waiting for their time, or failing.", "state")
	descGCOldest    = desc("gc_oldest_due_seconds", "When the review was due that waits longest, seconds since 1970; 0 for none.")
	descGCPending   = desc("gc_pending_objects", "Objects in storage that no blob names any more.")
	descGCPendBytes = desc("gc_pending_bytes", "Their size.")
	descGCReviewed  = desc("gc_reviewed_total", "Manifests and blobs that were looked at, by all replicas together.")
	descGCManifests = desc("gc_manifests_total", "Manifests collected, by all replicas together.")
	descGCBlobs     = desc("gc_blobs_total", "Blobs collected, by all replicas together.")
	descGCFreed     = desc("gc_freed_bytes_total", "Bytes freed, by all replicas together.")
	descHolds       = desc("holds", "Manifests that are held.")

	descScrubBlobs   = desc("scrub_blobs_total", "Blobs that the scrub of this process has hashed.")
	descScrubBytes   = desc("scrub_bytes_total", "Their size.")
	descScrubDamaged = desc("scrub_damaged_total", "Blobs that the scrub of this process found damaged.")
	descStoreBytes   = desc("storage_bytes", "Size of all blobs in storage.")
	descStoreChecked = desc("storage_checked_bytes", "Size of those that were hashed within the scrub period.")
	descOldestCheck  = desc("storage_oldest_check_seconds", "When the blob was hashed that has waited longest, seconds since 1970; 0 for none.")
	descWithheld     = desc("blobs_withheld", "Damaged blobs that are not served.")
)

// storageDescs are what [storageState] tells.
var storageDescs = []*prometheus.Desc{
	descGCTasks, descGCOldest, descGCPending, descGCPendBytes, descGCReviewed, descGCManifests, descGCBlobs, descGCFreed, descHolds,
	descScrubBlobs, descScrubBytes, descScrubDamaged, descStoreBytes, descStoreChecked, descOldestCheck, descWithheld,
}

// storageState are the figures of garbage collection and of the scrub.
type storageState struct {
	*Server
	mu       sync.Mutex
	at       time.Time
	coverage []prometheus.Metric // guarded by mu, as old as coverageAge at most
}

func (s *storageState) collect(ctx context.Context) []prometheus.Metric {
	var out []prometheus.Metric
	out = append(out, s.garbage(ctx)...)
	done := s.content.ScrubCounts()
	out = append(out, counter(descScrubBlobs, done.Blobs), counter(descScrubBytes, done.Bytes), counter(descScrubDamaged, done.Damaged))
	return append(out, s.covered(ctx)...)
}

func (s *storageState) garbage(ctx context.Context) []prometheus.Metric {
	gc, err := s.content.GCStatus(ctx)
	if err != nil {
		s.log.Warn("read figures failed", "error", err)
		return nil
	}
	oldest := 0.0
	if gc.OldestDue != nil {
		oldest = float64(gc.OldestDue.Unix())
	}
	return []prometheus.Metric{
		gauge(descGCTasks, float64(gc.Due), "due"), gauge(descGCTasks, float64(gc.Waiting), "waiting"), gauge(descGCTasks, float64(gc.Failing), "failing"),
		gauge(descGCOldest, oldest), gauge(descGCPending, float64(gc.PendingObjects)), gauge(descGCPendBytes, float64(gc.PendingBytes)),
		counter(descGCReviewed, gc.Totals.Reviewed), counter(descGCManifests, gc.Totals.Manifests),
		counter(descGCBlobs, gc.Totals.Blobs), counter(descGCFreed, gc.Totals.Bytes), gauge(descHolds, float64(gc.Holds)),
	}
}

// covered sums over all blobs, which is dear where there are many.
func (s *storageState) covered(ctx context.Context) []prometheus.Metric {
	s.mu.Lock()
	defer s.mu.Unlock()
	if age := time.Since(s.at); s.coverage != nil && age < coverageAge {
		return s.coverage
	}
	scrub, err := s.content.ScrubStatus(ctx, s.scrubOptions())
	if err != nil {
		s.log.Warn("read figures failed", "error", err)
		return nil
	}
	oldest := 0.0
	if !scrub.OldestCheck.IsZero() {
		oldest = float64(scrub.OldestCheck.Unix())
	}
	s.at, s.coverage = time.Now(), []prometheus.Metric{
		gauge(descStoreBytes, float64(scrub.Bytes)), gauge(descStoreChecked, float64(scrub.CheckedBytes)),
		gauge(descOldestCheck, oldest), gauge(descWithheld, float64(scrub.Withheld)),
	}
	return s.coverage
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(d *prometheus.Desc, n int64) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
}
