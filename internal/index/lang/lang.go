// Package lang reads packages of programming languages from single files:
// metadata of installed npm, Python, Ruby, .NET, PHP, conda and R packages, Java
// archives, the build information inside Go and Rust executables, and, in
// directories with source code, lock files.
//
// Where osv-scalibr's extractor keeps within our bounds it does the work, over
// a view that holds one bounded file and nothing else. Where it cannot, the
// file of the format says why and what stands in its place. The package knows
// no layer and no path but that of the file in hand.
package lang

import (
	"errors"
	"fmt"
	"io"
)

// ErrOther says that the file only has the name of its kind.
var ErrOther = errors.New("the file is of another kind")

// errBudget says that a parser wanted to read more than it may.
var errBudget = errors.New("more bytes were asked for than one file may cost")

// budget is an io.ReaderAt that gives out at most left bytes, so that a parser
// that trusts lengths in the file cannot be made to allocate what they say.
type budget struct {
	r     io.ReaderAt
	left  int64
	spent bool // the bound was hit
}

func (b *budget) ReadAt(p []byte, at int64) (int, error) {
	if int64(len(p)) > b.left {
		b.spent = true
		return 0, errBudget
	}
	b.left -= int64(len(p))
	return b.r.ReadAt(p, at)
}

// readAll reads a file that may have at most max bytes.
func readAll(r *io.SectionReader, max int64) ([]byte, error) {
	if r.Size() > max {
		return nil, fmt.Errorf("%d bytes are more than %d", r.Size(), max)
	}
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}
