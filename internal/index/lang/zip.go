package lang

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/gatehouse-dev/gatehouse/internal/index/body"
)

// ArchiveLimits bound what an archive may cost.
type ArchiveLimits struct {
	Depth      int   // archives in archives, 1 is the file itself
	BytesMax   int64 // that are inflated of one file
	EntriesMax int   // of one archive, and of those that it lies in
	Packages   int   // of the file and all inner archives together
	MemoryMax  int64 // bytes of an inner archive that are kept in memory
	SizeMax    int64 // of one inner archive in bytes
	TempDir    string
	// Spend, if set, is asked before bytes are inflated: it bounds all files of a
	// layer together.
	Spend func(bytes int64) bool
}

// directoryEntry is the mean size in bytes of a directory's entry up to which
// EntriesMax entries can be read: names of 80 bytes. The directory is read
// whole before its entries can be counted, so its bytes are what is bounded.
const directoryEntry = 128

// openZip opens an archive whose directory is within limits. Errors: ErrOther
// when there is no directory at all.
func openZip(r *io.SectionReader, limits ArchiveLimits) (*zip.Reader, error) {
	const tail = 1<<16 + 22 // the end record and the longest comment
	b := &budget{r: r, left: int64(limits.EntriesMax)*directoryEntry + 4*tail}
	z, err := zip.NewReader(b, r.Size())
	if b.spent {
		return nil, fmt.Errorf("archive's directory is larger than that of %d entries", limits.EntriesMax)
	}
	if errors.Is(err, zip.ErrFormat) && !hasZipEnd(r, tail) {
		return nil, ErrOther
	}
	// Names are never used as paths, so that insecure ones do no harm.
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if len(z.File) > limits.EntriesMax {
		return nil, fmt.Errorf("archive has more than %d entries", limits.EntriesMax)
	}
	b.left = 1 << 62 // contents are bounded where they are opened
	return z, nil
}

func hasZipEnd(r *io.SectionReader, tail int64) bool {
	end := make([]byte, min(tail, r.Size()))
	if _, err := r.ReadAt(end, r.Size()-int64(len(end))); err != nil && err != io.EOF {
		return true // it cannot be ruled out
	}
	return bytes.Contains(end, []byte("PK\x05\x06"))
}

// readEntry inflates one entry of at most max bytes. archive/zip fails an
// entry that inflates to more than its directory says.
func readEntry(f *zip.File, max int64) ([]byte, error) {
	if f.UncompressedSize64 > uint64(max) {
		return nil, fmt.Errorf("entry %.200q of %d bytes is larger than %d", f.Name, f.UncompressedSize64, max)
	}
	c, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("entry %.200q: %w", f.Name, err)
	}
	defer c.Close()
	content, err := io.ReadAll(io.LimitReader(c, max+1))
	if err != nil {
		return nil, fmt.Errorf("entry %.200q: %w", f.Name, err)
	}
	return content, nil
}

func newBody(limits ArchiveLimits) *body.Body { return body.New(limits.MemoryMax, limits.TempDir) }
