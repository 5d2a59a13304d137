package update

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

var down = gatehouse.Errorf(gatehouse.CodeUnavailable, "it is down")

// TestPatience: the pause after a failure doubles up to the interval, and the
// first success ends it.
func TestPatience(t *testing.T) {
	const interval = 6 * time.Hour
	s := State{}
	var last time.Duration
	for n := 1; n <= 20; n++ {
		s = s.failed(noon, down, interval, 0.5)
		pause := s.DueAt().Sub(noon)
		if s.Failures != n || s.Error != "it is down" || pause < last || pause > interval {
			t.Fatalf("after %d failures: %+v, pause %s", n, s, pause)
		}
		last = pause
	}
	if first := (State{}).failed(noon, down, interval, 0.5).DueAt(); !first.Equal(noon.Add(backoffMin)) || last != interval {
		t.Errorf("from %s to %s, want from %s to %s", first.Sub(noon), last, backoffMin, interval)
	}
	s = s.succeeded(noon, interval, 0.5)
	if s.Failures != 0 || s.Error != "" || !s.LastSuccess.Equal(noon) || !s.DueAt().Equal(noon.Add(interval)) {
		t.Errorf("after a success: %+v", s)
	}
	// A feed that is looked at every minute is not asked every minute while it fails.
	if s := (State{}).failed(noon, down, time.Minute, 0.5); s.DueAt().Sub(noon) < backoffMin {
		t.Errorf("the next look comes after %s", s.DueAt().Sub(noon))
	}
}

// TestJitter keeps installations from asking together, within bounds.
func TestJitter(t *testing.T) {
	early, late := (State{}).succeeded(noon, time.Hour, 0).DueAt(), (State{}).succeeded(noon, time.Hour, 1).DueAt()
	if early.Sub(noon) != 54*time.Minute || late.Sub(noon) != 66*time.Minute {
		t.Errorf("from %s to %s", early.Sub(noon), late.Sub(noon))
	}
}

// TestSourceAsksForPatience: what a source asks for binds also who is asked for
// by hand, but not for ever.
func TestSourceAsksForPatience(t *testing.T) {
	s := State{}.failed(noon, &waitError{down, noon.Add(3 * time.Hour)}, 6*time.Hour, 0.5)
	if !s.NotBefore.Equal(noon.Add(3*time.Hour)) || !s.Ask(true).DueAt().Equal(s.NotBefore) {
		t.Errorf("%+v", s)
	}
	s = State{}.failed(noon, &waitError{down, noon.Add(1000 * time.Hour)}, time.Hour, 0.5)
	if !s.NotBefore.Equal(noon.Add(patienceMax)) {
		t.Errorf("a source sends us away until %s", s.NotBefore)
	}
	if s = s.failed(noon, down, time.Hour, 0.5); !s.NotBefore.IsZero() || !s.Ask(false).DueAt().IsZero() {
		t.Errorf("patience outlives its reason: %+v", s)
	}
}

// TestErrorsThatAreKept are short, printable and hold nothing of our inside.
func TestErrorsThatAreKept(t *testing.T) {
	hostile := gatehouse.Errorf(gatehouse.CodeInvalid, "%s", "it says \x00\x1b[31m"+strings.Repeat("ü", errorMax))
	s := State{}.failed(noon, hostile, time.Hour, 0.5).Error
	if strings.ContainsAny(s, "\x00\x1b") || len(s) > errorMax+3 || !strings.HasPrefix(s, "it says") {
		t.Errorf("%q", s)
	}
	if s := (State{}).failed(noon, errors.New("open /secret/path"), time.Hour, 0.5).Error; strings.Contains(s, "secret") {
		t.Errorf("%q", s)
	}
}
