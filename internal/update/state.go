package update

import (
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/gatehouse-dev/gatehouse"
)

// State is what is known of one feed between two looks at it.
type State struct {
	Feed        string    `json:"feed"`
	Source      string    `json:"source"` // where it comes from, for people
	LastAttempt time.Time `json:"lastAttempt,omitzero"`
	// LastSuccess is when the source was last known to have nothing newer.
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	Failures    int       `json:"failures"`        // since the last success
	Error       string    `json:"error,omitempty"` // of the last attempt
	NextAttempt time.Time `json:"nextAttempt,omitzero"`
	// NotBefore is when the source allows to be asked again (Retry-After).
	NotBefore time.Time `json:"notBefore,omitzero"`
	// Absent: a part of a group that is not published there.
	Absent bool `json:"absent,omitempty"`
	// Forced: the next look takes everything anew, and believes it.
	Forced bool `json:"forced,omitempty"`
}

// Ask is the state of a feed that somebody wants to be looked at now. It
// overrides our own patience, never what the source asked for.
func (s State) Ask(force bool) State {
	s.NextAttempt, s.Forced = time.Time{}, s.Forced || force
	return s
}

const (
	backoffMin = 5 * time.Minute // after the first failure, doubled for each more
	// patienceMax bounds how long a source may send us away.
	patienceMax = 24 * time.Hour
	errorMax    = 500 // bytes of a failure's text that are kept
)

// DueAt is when the feed is to be looked at; zero is at once.
func (s State) DueAt() time.Time {
	if s.NotBefore.After(s.NextAttempt) {
		return s.NotBefore
	}
	return s.NextAttempt
}

// succeeded is the state after the source had nothing newer, or what it had was
// taken over. The next look comes after the interval, a tenth more or less, so
// that installations do not all ask at the same time.
func (s State) succeeded(now time.Time, interval time.Duration, jitter float64) State {
	s.LastAttempt, s.LastSuccess, s.Failures, s.Error, s.NotBefore, s.Forced = now, now, 0, "", time.Time{}, false
	s.NextAttempt = now.Add(spread(interval, 0.1, jitter))
	return s
}

// failed is the state after an attempt that brought nothing: the pause doubles
// with each failure up to the interval, a quarter more or less, and is never
// shorter than the source asks for.
func (s State) failed(now time.Time, err error, interval time.Duration, jitter float64) State {
	s.LastAttempt, s.Failures, s.Error, s.Absent, s.Forced = now, s.Failures+1, text(err), false, false
	pause := max(interval, backoffMin)
	if shift := s.Failures - 1; shift < 16 && backoffMin<<shift < pause {
		pause = backoffMin << shift
	}
	s.NextAttempt, s.NotBefore = now.Add(spread(pause, 0.25, jitter)), time.Time{}
	var wait *waitError
	if errors.As(err, &wait) && wait.until.After(now) {
		s.NotBefore = wait.until
		if limit := now.Add(patienceMax); wait.until.After(limit) {
			s.NotBefore = limit
		}
	}
	return s
}

// spread is d, share of it more or less; jitter is from 0 to 1.
func spread(d time.Duration, share, jitter float64) time.Duration {
	return time.Duration(float64(d) * (1 - share + 2*share*jitter))
}

// text is what is kept of an error: it may repeat what a source answered, and is
// shown to whoever may see the state.
func text(err error) string {
	var e *gatehouse.Error
	if !errors.As(err, &e) || e.Code == gatehouse.CodeInternal {
		return "something broke inside; the log has the details"
	}
	s := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, err.Error())
	if len(s) > errorMax {
		s = strings.ToValidUTF8(s[:errorMax], "") + "…"
	}
	return s
}

// waitError is a failure whose source says when to come back.
type waitError struct {
	err   error
	until time.Time
}

func (w *waitError) Error() string { return w.err.Error() }
func (w *waitError) Unwrap() error { return w.err }
