package mem_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/blobtest"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
)

func TestStore(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Store { return mem.New() }, nil)
}

func TestFaults(t *testing.T) {
	s, key := mem.New(), blob.NewKey(time.Now())
	s.FailBefore(mem.OpPublish, 1, mem.ErrInjected)
	if _, err := blob.Put(t.Context(), s, key, strings.NewReader("x")); !errors.Is(err, mem.ErrInjected) || gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Fatalf("Put = %v", err)
	}
	// The fault has struck once and is over; this one strikes afterwards.
	s.FailAfter(mem.OpPublish, 1, mem.ErrInjected)
	w, err := s.Write(t.Context(), key, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context(), key, 0, nil); !errors.Is(err, mem.ErrInjected) {
		t.Fatalf("Publish = %v", err)
	}
	if _, err := s.Open(t.Context(), key); err != nil {
		t.Fatalf("it was done all the same: %v", err)
	}
	if got := s.Calls(mem.OpPublish); got != 2 {
		t.Errorf("publish was called %d times, want 2", got)
	}
}

func TestCrashLosesWhatIsNotDurable(t *testing.T) {
	s, key := mem.New(), blob.NewKey(time.Now())
	w, err := s.Write(t.Context(), key, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "durable")
	state, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w, err = s.Write(t.Context(), key, 7, state); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, " lost")
	s = s.Crash()
	if _, err := s.Write(t.Context(), key, 8, state); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Fatalf("bytes that were not durable are there: %v", err)
	}
	if _, err := s.Write(t.Context(), key, 7, state); err != nil {
		t.Fatalf("durable bytes are gone, or the lock is not: %v", err)
	}
}
