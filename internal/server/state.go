package server

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
)

const (
	stateTimeout = 5 * time.Second
	stateAge     = 5 * time.Second // scrapes in between get the same answer
)

// state are the figures that the database and other parts know. They are asked
// for by scrapes, and not more often than every few seconds.
type state struct {
	*Server
	storage storageState
	mu      sync.Mutex
	at      time.Time
	figures []prometheus.Metric
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

var (
	descUp         = desc("database_up", "1 if the database answered the last scrape.")
	descStatements = desc("db_statements_total", "Statements run.")
	descJobs       = desc("jobs", "Jobs that are kept, by what they do and where they stand.", "kind", "state")
	descGeneration = desc("advisory_generation", "Number of the advisory generation in force, 0 for none.")
	descImported   = desc("advisory_imported_seconds", "When the advisories in force were imported, seconds since 1970.")
	descUpdated    = desc("advisory_updated_seconds", "When the newest advisory in force was changed, seconds since 1970.")
	descRecords    = desc("advisory_records", "Advisories in force.")
	descFeedGood   = desc("feed_success_seconds", "When the feed's source was last known to have nothing newer, seconds since 1970; 0 for never.", "feed")
	descFeedFailed = desc("feed_failures", "Attempts at the feed that failed since the last success.", "feed")
	descFeedTime   = desc("feed_updated_seconds", "How new the feed's advisories are by its own word, seconds since 1970.", "feed")
	descPolicies   = desc("policies", "Policies in force.")
	descComplete   = desc("policies_complete", "1 if every policy could be read; otherwise everything is denied.")
	descWaiting    = desc("decisions_waiting", "Decisions that are not written yet.")
	descReindex    = desc("reindex_images", "Images that wait to be indexed again by this version's indexer.")
	descRescan     = desc("malware_layers", "Layers that wait to be looked at with new malware signatures.")
	descLogSize    = desc("sigstore_log_entries", "Entries of the newest checkpoint of the private Sigstore's log.")
	descLogWaiting = desc("sigstore_log_waiting", "Entries that wait for a place in the log, up to 1000.")
	descLogOut     = desc("sigstore_log_checkpoint_seconds", "When the newest checkpoint came out, seconds since 1970.")
	descTrustEnds  = desc("sigstore_metadata_not_after_seconds", "When the metadata of the TUF repository expire, seconds since 1970.")
	descCAEnds     = desc("sigstore_authority_not_after_seconds", "When the first certificate of an authority of the private Sigstore ends, seconds since 1970.")
	descReady      = desc("ready", "1 while /readyz answers 200.")
)

// Describe implements prometheus.Collector.
func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descUp, descStatements, descJobs, descGeneration, descImported, descUpdated, descRecords, descFeedGood, descFeedFailed, descFeedTime,
		descPolicies, descComplete, descWaiting, descReindex, descRescan, descReady,
		descLogSize, descLogWaiting, descLogOut, descTrustEnds, descCAEnds,
	} {
		ch <- d
	}
	for _, d := range storageDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); now.Sub(s.at) >= stateAge || now.Before(s.at) {
		s.figures, s.at = s.collect(), now
	}
	for _, m := range s.figures {
		ch <- m
	}
}

func (s *state) collect() []prometheus.Metric {
	var out []prometheus.Metric
	add := func(d *prometheus.Desc, v float64, labels ...string) { out = append(out, gauge(d, v, labels...)) }
	out = append(out, counter(descStatements, s.db.Statements()))
	s.decider.mu.Lock()
	waiting := len(s.decider.waiting)
	s.decider.mu.Unlock()
	add(descWaiting, float64(waiting))
	add(descReady, truth(s.ready.Load()))

	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	var jobs []db.JobCount
	var gen db.Generation
	var reindex, rescan int64
	err := s.db.Read(ctx, func(tx *db.Tx) (err error) {
		if jobs, err = tx.JobCounts(ctx); err != nil {
			return err
		}
		if reindex, err = tx.ReindexLeft(ctx); err != nil {
			return err
		}
		if rescan, err = tx.MalwareLeft(ctx); err != nil {
			return err
		}
		gen, _, err = tx.CurrentGeneration(ctx)
		return err
	})
	add(descUp, truth(err == nil))
	if err != nil {
		s.log.Warn("read figures failed", "error", err)
		return out
	}
	for _, j := range jobs {
		add(descJobs, float64(j.Count), j.Kind, j.State.String())
	}
	add(descReindex, float64(reindex))
	add(descRescan, float64(rescan))
	add(descGeneration, float64(gen.ID))
	var meta advisory.Meta
	if gen.ID != 0 && json.Unmarshal(gen.Meta, &meta) == nil {
		add(descImported, float64(gen.CreatedAt.Unix()))
		add(descUpdated, float64(meta.UpdatedAt.Unix()))
		add(descRecords, float64(meta.Records))
	}
	if status, err := s.feeds.status(ctx); err == nil {
		for _, f := range status.Feeds {
			if f.Absent {
				continue
			}
			add(descFeedGood, seconds(f.LastSuccess), f.Feed)
			add(descFeedFailed, float64(f.Failures), f.Feed)
			add(descFeedTime, seconds(f.UpdatedAt), f.Feed)
		}
	}
	if set, err := s.policies.Set(ctx); err == nil {
		add(descPolicies, float64(len(set.Policies)))
		add(descComplete, truth(set.Complete))
	}
	if s.sigstore != nil {
		s.sigstore.figures(ctx, add)
	}
	return append(out, s.storage.collect(ctx)...)
}

// seconds is a time as Prometheus has them; 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
