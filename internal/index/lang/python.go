package lang

import (
	"bytes"
	"context"
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
		content, err := readAll(r, PythonSizeMax)
		if err != nil {
			return nil, err
		}
		return pythonMetadata(ctx, name, content)
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
		return pythonMetadata(ctx, name+"/"+f.Name, content)
	}
	return nil, nil
}

func pythonMetadata(ctx context.Context, name string, content []byte) ([]gatehouse.Package, error) {
	packages, err := run(ctx, wheelegg.New, nil, name, bytes.NewReader(content), int64(len(content)))
	if err == nil && len(packages) == 1 {
		packages[0].Licenses = pythonLicenses(content)
	}
	return packages, err
}

// pythonLicenses reads the head of a METADATA (core metadata specification):
// the expression where there is one, then the classifiers, which are from a
// list, and only then the free text.
func pythonLicenses(content []byte) []string {
	const linesMax, licensesMax, textMax = 2000, 8, 100
	var expression, free string
	var classifiers []string
	n := 0
	for raw := range bytes.Lines(content) {
		line := strings.TrimRight(string(raw), "\r\n")
		if n++; line == "" || n > linesMax {
			break // the description follows
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "License-Expression":
			expression = value
		case "License":
			free = value
		case "Classifier":
			if c, ok := strings.CutPrefix(value, "License :: "); ok && len(classifiers) < licensesMax {
				if i := strings.LastIndex(c, ":: "); i >= 0 {
					c = c[i+len(":: "):]
				}
				if c != "OSI Approved" {
					classifiers = append(classifiers, c)
				}
			}
		}
	}
	switch {
	case expression != "":
		return []string{expression}
	case len(classifiers) > 0:
		return classifiers
	case free != "" && free != "UNKNOWN" && len(free) <= textMax:
		return []string{free}
	}
	return nil
}
