package content

import (
	"context"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// One answer of remote storage with wrong bytes may be the fault of the way, of
// a proxy, of this machine. Its reader is cut off, but the blob is withheld, from
// everybody, only after a second full read has found it damaged too.

const (
	// doubtsMax bounds the blobs that are read again at the same time. More are
	// left to their next readers and to the scrub.
	doubtsMax = 4
	// doubtTime and doubtRate (bytes per second) bound the time of one.
	doubtTime = time.Minute
	doubtRate = 1 << 20
)

// doubts are the blobs that are being read again.
type doubts struct {
	ctx     context.Context // ends them
	stop    context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex
	open map[int64]bool // rows
}

func newDoubts() *doubts {
	ctx, stop := context.WithCancel(context.Background())
	return &doubts{ctx: ctx, stop: stop, open: map[int64]bool{}}
}

// begin is false where the blob is being read already, or too many are.
func (d *doubts) begin(id int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[id] || len(d.open) >= doubtsMax || d.ctx.Err() != nil {
		return false
	}
	d.open[id] = true
	d.running.Add(1)
	return true
}

func (d *doubts) end(id int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, id)
	d.running.Done()
}

// Settle waits until no blob that a reader found damaged is being read again.
func (c *Content) Settle() { c.doubts.running.Wait() }

// Close ends what goes on in the background of reads. Nothing is lost by it. The
// registry can be used on, but no doubts are followed up.
func (c *Content) Close() error {
	c.doubts.mu.Lock()
	c.doubts.stop()
	c.doubts.mu.Unlock()
	c.Settle()
	return nil
}

// doubt has a blob read again in the background that a reader with ctx found
// damaged, and withheld if it is.
func (c *Content) doubt(ctx context.Context, b stored) {
	if !c.doubts.begin(b.id) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), doubtTime+time.Duration(b.size/doubtRate)*time.Second)
	ended := context.AfterFunc(c.doubts.ctx, cancel)
	go func() {
		defer c.doubts.end(b.id)
		defer cancel()
		defer ended()
		// Missing bytes are not withheld by readers, see OpenBlob; and what cannot be
		// read now, the next reader doubts again.
		d, err := c.examine(ctx, b, true, nil)
		if err != nil || d.kind == "" || d.kind == BlobMissing {
			return
		}
		noted(ctx, func(ctx context.Context) error {
			_, err := c.withhold(ctx, gatehouse.System("read"), b, d.why)
			return err
		})
	}()
}
