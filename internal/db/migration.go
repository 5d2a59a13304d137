package db

import (
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// migrationFS is the folder of migrations in the words of one database.
type migrationFS struct{ words *strings.Replacer }

// Open implements fs.FS.
func (m migrationFS) Open(name string) (fs.File, error) {
	full := path.Join("migrations", name)
	if !strings.HasSuffix(name, ".sql") {
		return migrations.Open(full)
	}
	text, err := migrations.ReadFile(full)
	if err != nil {
		return nil, err
	}
	text = []byte(m.words.Replace(string(text)))
	return &migrationFile{Reader: strings.NewReader(string(text)), name: path.Base(name), size: int64(len(text))}, nil
}

// migrationFile is one migration; it is its own fs.FileInfo.
type migrationFile struct {
	io.Reader
	name string
	size int64
}

func (f *migrationFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *migrationFile) Close() error               { return nil }
func (f *migrationFile) Name() string               { return f.name }
func (f *migrationFile) Size() int64                { return f.size }
func (f *migrationFile) Mode() fs.FileMode          { return 0o444 }
func (f *migrationFile) ModTime() time.Time         { return time.Time{} }
func (f *migrationFile) IsDir() bool                { return false }
func (f *migrationFile) Sys() any                   { return nil }
