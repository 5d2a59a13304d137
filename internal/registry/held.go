package registry

import (
	"sync/atomic"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// heldMax is the default of [Options.HeldMax].
	heldMax = 512 << 20
	// heldFree is up to where a document is not counted: nearly all manifests.
	heldFree = 64 << 10
)

// held counts the bytes of large documents (manifests on their way in or out,
// lists) that are in memory while clients send or take them. Blobs are streamed
// and need none; a document of 4 MiB that many clients take slowly, each within
// its deadline, would fill any memory.
type held struct {
	max   int64
	bytes atomic.Int64
}

// hold makes room for n bytes until release is called.
// CodeTooMany: there is none.
func (h *held) hold(n int64) (release func(), err error) {
	if n <= heldFree {
		return func() {}, nil
	}
	if h.bytes.Add(n) > h.max {
		h.bytes.Add(-n)
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "too many large manifests and lists are on their way").
			WithDetail("TOOMANYREQUESTS").WithHint("wait until some of them have arrived")
	}
	return func() { h.bytes.Add(-n) }, nil
}
