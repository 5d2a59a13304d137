package lang

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/google/osv-scalibr/extractor/filesystem/language/python/wheelegg"

	"github.com/gatehouse-dev/gatehouse"
)

// PythonSizeMax is the largest METADATA or PKG-INFO in bytes that is read.
const PythonSizeMax = 4 << 20

// Python reads the metadata of an installed distribution: METADATA of a
// dist-info directory, PKG-INFO of an egg-info directory or an egg-info file,
// or an egg archive, of which only the metadata is opened: osv-scalibr's
// extractor, which does the parsing, would inflate without a bound.
func Python(ctx context.Context, name string, r *io.SectionReader, limits ArchiveLimits) ([]gatehouse.Package, error) {
	if !strings.HasSuffix(name, ".egg") {
		if r.Size() > PythonSizeMax {
			return nil, fmt.Errorf("metadata of %d bytes is larger than %d", r.Size(), PythonSizeMax)
		}
		return run(ctx, wheelegg.New, nil, name, r, r.Size())
	}
	z, err := openZip(r, limits)
	if err != nil {
		return nil, err
	}
	for _, f := range z.File {
		if f.Name != "EGG-INFO/PKG-INFO" {
			continue
		}
		content, err := readEntry(f, PythonSizeMax)
		if err != nil {
			return nil, err
		}
		return run(ctx, wheelegg.New, nil, name+"/"+f.Name, bytes.NewReader(content), int64(len(content)))
	}
	return nil, nil
}
