package lang

import (
	"context"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	cpb "github.com/google/osv-scalibr/binary/proto/config_go_proto"
	"github.com/google/osv-scalibr/extractor/filesystem"
	scalibrlog "github.com/google/osv-scalibr/log"
	"github.com/google/osv-scalibr/purl"

	"github.com/gatehouse-dev/gatehouse"
)

// newExtractor is the shape of every extractor's constructor.
type newExtractor func(*cpb.PluginConfig) (filesystem.Extractor, error)

// silence takes osv-scalibr's global logger away, once for the process: it
// writes foreign file names to standard error, and this package has no log.
// What it would say comes back as errors.
var silence = sync.OnceFunc(func() { scalibrlog.SetLogger(quiet{}) })

type quiet struct{}

func (quiet) Errorf(string, ...any) {}
func (quiet) Error(...any)          {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Warn(...any)           {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Info(...any)           {}
func (quiet) Debugf(string, ...any) {}
func (quiet) Debug(...any)          {}

// run gives one file to an extractor of osv-scalibr. content must also be an
// io.ReaderAt where the extractor needs one.
func run(ctx context.Context, build newExtractor, cfg *cpb.PluginConfig, name string, content io.Reader, size int64) ([]gatehouse.Package, error) {
	silence()
	e, err := build(cfg)
	if err != nil {
		return nil, err
	}
	info := fileInfo{name: path.Base(name), size: size}
	found, err := e.Extract(ctx, &filesystem.ScanInput{
		FS: nothing{}, Path: name, Info: info, Reader: content,
	})
	var packages []gatehouse.Package
	for _, p := range found.Packages {
		if t := purlType(p.PURLType); t != "" {
			packages = append(packages, gatehouse.Package{Type: t, Name: p.Name, Version: p.Version, Licenses: p.Licenses})
		}
	}
	return packages, err
}

// purlType returns the types that we know; others are of no use to anyone.
func purlType(t string) string {
	switch t {
	case purl.TypePyPi, purl.TypeGolang, purl.TypeMaven, purl.TypeGem, purl.TypeNuget:
		return strings.ToLower(t)
	}
	return ""
}

// nothing is the file system that extractors see beside their file: empty, so
// that none follows a name that a foreign file holds.
type nothing struct{}

func (nothing) Open(name string) (fs.File, error)          { return nil, missing("open", name) }
func (nothing) ReadDir(name string) ([]fs.DirEntry, error) { return nil, missing("readdir", name) }
func (nothing) Stat(name string) (fs.FileInfo, error)      { return nil, missing("stat", name) }

func missing(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

type fileInfo struct {
	name string
	size int64
}

func (i fileInfo) Name() string     { return i.name }
func (i fileInfo) Size() int64      { return i.size }
func (fileInfo) Mode() fs.FileMode  { return 0o755 }
func (fileInfo) ModTime() time.Time { return time.Time{} }
func (fileInfo) IsDir() bool        { return false }
func (fileInfo) Sys() any           { return nil }
