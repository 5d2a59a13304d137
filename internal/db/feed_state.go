package db

import (
	"context"
	"time"
)

// FeedState is what the last looks at one feed came to.
type FeedState struct {
	Feed        string
	Source      string // for people
	LastAttempt time.Time
	LastSuccess time.Time
	Failures    int // since the last success
	Error       string
	NextAttempt time.Time
	NotBefore   time.Time // the source does not want to be asked before
	Absent      bool      // it is not published there
	Forced      bool      // the next look takes everything anew
}

// FeedStates lists the states of all feeds that were looked at, by name.
func (t *Tx) FeedStates(ctx context.Context) ([]FeedState, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT feed, source, last_attempt, last_success, failures, error, next_attempt, not_before, absent, forced
		FROM feed_state ORDER BY feed`)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []FeedState
	for rows.Next() {
		var s FeedState
		var attempt, success, next, before int64
		var absent, forced int
		if err := rows.Scan(&s.Feed, &s.Source, &attempt, &success, &s.Failures, &s.Error, &next, &before, &absent, &forced); err != nil {
			return nil, unavailable(err)
		}
		s.LastAttempt, s.LastSuccess, s.NextAttempt, s.NotBefore = fromMicros(attempt), fromMicros(success), fromMicros(next), fromMicros(before)
		s.Absent, s.Forced = absent != 0, forced != 0
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// SetFeedState replaces the state of one feed.
func (t *Tx) SetFeedState(ctx context.Context, s FeedState) error {
	bit := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	_, err := t.tx.ExecContext(ctx, `INSERT INTO feed_state (feed, source, last_attempt, last_success, failures, error, next_attempt, not_before, absent, forced)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (feed) DO UPDATE SET source = excluded.source, last_attempt = excluded.last_attempt, last_success = excluded.last_success,
		failures = excluded.failures, error = excluded.error, next_attempt = excluded.next_attempt, not_before = excluded.not_before, absent = excluded.absent,
		forced = excluded.forced`,
		s.Feed, s.Source, micros(s.LastAttempt), micros(s.LastSuccess), s.Failures, s.Error, micros(s.NextAttempt), micros(s.NotBefore), bit(s.Absent), bit(s.Forced))
	return unavailable(err)
}

// RemoveFeedState forgets a feed that nobody looks at any more.
func (t *Tx) RemoveFeedState(ctx context.Context, feed string) error {
	_, err := t.tx.ExecContext(ctx, `DELETE FROM feed_state WHERE feed = $1`, feed)
	return unavailable(err)
}
