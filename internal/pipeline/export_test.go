package pipeline

import "testing"

// SetFew lets tests of few packages take the way of many.
func SetFew(t *testing.T, n int) {
	was := few
	few = n
	t.Cleanup(func() { few = was })
}

// SetAheadMax makes n the most findings that are kept in memory.
func SetAheadMax(t testing.TB, n int) {
	was := aheadMax
	aheadMax = n
	t.Cleanup(func() { aheadMax = was })
}

// SetFindingsMax makes n the most findings that the packages of an image may have.
func SetFindingsMax(t *testing.T, n int) {
	was := findingsMax
	findingsMax = n
	t.Cleanup(func() { findingsMax = was })
}
