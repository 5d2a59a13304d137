package pipeline

import "testing"

// SetFew lets tests of few packages take the way of many.
func SetFew(t *testing.T, n int) {
	was := few
	few = n
	t.Cleanup(func() { few = was })
}
