package content

import (
	"sync"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// hotMax bounds the rows that are remembered, of some 300 bytes each.
const hotMax = 1024

// hotBlobs remembers the rows of blobs that were opened a moment ago: when an
// image is rolled out, many nodes pull the same layers at once. What it knows
// holds for one epoch of the database, so that a blob that was deleted, found to
// be corrupt or linked elsewhere is looked up anew. The zero hotBlobs is ready.
type hotBlobs struct {
	mu    sync.Mutex
	epoch int64               // guarded by mu
	rows  map[hotBlob]db.Blob // guarded by mu
}

type hotBlob struct {
	repo   gatehouse.Repo
	digest gatehouse.Digest
}

func (h *hotBlobs) get(epoch int64, repo gatehouse.Repo, digest gatehouse.Digest) (b db.Blob, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.epoch != epoch {
		return db.Blob{}, false
	}
	b, ok = h.rows[hotBlob{repo, digest}]
	return b, ok
}

// put remembers a row that was read after the epoch had been asked for. Bytes
// that lie in their row are not kept.
func (h *hotBlobs) put(epoch int64, repo gatehouse.Repo, b db.Blob) {
	if b.StorageKey == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if epoch < h.epoch {
		return
	}
	if h.rows == nil {
		h.rows = map[hotBlob]db.Blob{}
	}
	if epoch > h.epoch || len(h.rows) >= hotMax {
		clear(h.rows)
		h.epoch = epoch
	}
	h.rows[hotBlob{repo, b.Digest}] = b
}
