package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// TestEventSizeMax: a line over the limit is an error, not a truncated truth.
func TestEventSizeMax(t *testing.T) {
	line := `{"Action":"output","Package":"p","Test":"T","Output":"` + strings.Repeat("x", eventSizeMax) + `"}`
	if err := newGotest(io.Discard, newTally()).read(strings.NewReader(line)); err == nil {
		t.Error("an overlong line was accepted")
	}
}

// TestOutputMax: of a noisy test the end is kept.
func TestOutputMax(t *testing.T) {
	p := &pkg{output: map[string]*bytes.Buffer{}}
	for range 3 {
		p.print("T", strings.Repeat("x", outputMax))
	}
	p.print("T", "the end")
	if got := p.output["T"]; got.Len() != outputMax || !strings.HasSuffix(got.String(), "the end") {
		t.Errorf("kept %d bytes, want the last %d", got.Len(), outputMax)
	}
}

// FuzzEvents: whatever the go command prints, reading it neither panics nor
// turns a failed package into a success.
func FuzzEvents(f *testing.F) {
	f.Add(`{"Action":"run","Package":"p","Test":"T/a"}` + "\n" + `{"Action":"pass","Package":"p","Test":"T/a"}` + "\n" + `{"Action":"pass","Package":"p"}`)
	f.Add(`{"Action":"build-fail","ImportPath":"p"}` + "\n" + `{"Action":"fail","Package":"p","FailedBuild":"p"}`)
	f.Add(`{"Action":"skip","Package":"p","Test":"T"}` + "\n" + `{"Action":"output","Package":"p","Output":"--- "}`)
	f.Fuzz(func(t *testing.T, stream string) {
		all := newTally()
		if err := newGotest(io.Discard, all).read(strings.NewReader(stream + "\n" + `{"Action":"fail","Package":"sentinel"}` + "\n")); err != nil {
			return
		}
		if !all.failed() {
			t.Error("a failed package was lost")
		}
	})
}
