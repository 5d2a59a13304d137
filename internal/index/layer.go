package index

import (
	"context"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// Layer reads one layer to its very end: gzip (of any number of members),
// zstd or a plain tar. DiffID and Blob are computed over every byte, also
// those behind the end of the tar.
//
// A file that is too large or cannot be parsed makes the inventory incomplete
// and the walk goes on. An error means that the walk did not come to its end;
// the inventory beside it holds what was found until then, is not Complete,
// tells the error as its last reason, and has digests only where the whole
// stream could be read. Errors:
//
//	CodeTooLarge     a bomb: a limit of the whole layer was exceeded
//	CodeInvalid      not gzip, zstd or tar; truncated; corrupt
//	CodeUnavailable  r failed; reading again may help
//	context errors   ctx ended
//
// Layer does not close r and does not use it after it has returned, for which
// it waits until a Read that is under way comes back. It uses three goroutines
// and about 4 MiB while it runs, beside limits.MemoryMax, the window of zstd
// what extractors and inspectors take. It may be called concurrently.
func Layer(ctx context.Context, r io.Reader, limits Limits, what Analysis) (gatehouse.LayerInventory, error) {
	limits = limits.withDefaults()
	w := newWalker(ctx, limits, what)
	defer w.body.Close()
	found := w.found
	s := newStream(ctx, r, limits)
	walkErr := w.tar(s)
	if walkErr == nil || gatehouse.CodeOf(walkErr) == gatehouse.CodeInvalid {
		zeros, err := s.drain()
		switch {
		case err != nil:
			walkErr = err
		case walkErr == nil && !zeros:
			found.incomplete("data stands behind the end of the tar archive and was not indexed")
		}
	}
	err := s.finish(ctx)
	if err == nil || gatehouse.CodeOf(walkErr) == gatehouse.CodeTooLarge {
		err = walkErr
	}
	inv := found.inventory()
	inv.Indexer = what.Version()
	inv.Size = s.plainSize
	if s.whole {
		inv.DiffID, inv.Blob = s.digests()
	}
	if err != nil {
		inv.Complete = false
		inv.Incomplete = append(inv.Incomplete, cleanText(err.Error()))
	}
	return inv, err
}
