package db

import (
	"context"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/gatehouse-dev/gatehouse"
)

// migrate brings the schema up to date. Replicas that start at once take turns:
// the first one does it. CodeConflict: the schema is of a newer version of this
// program, which may mean other things by the same rows.
func (d *DB) migrate(ctx context.Context) error {
	if d.dialect.turn != "" {
		conn, err := d.write.Conn(ctx)
		if err != nil {
			return unavailable(err)
		}
		defer conn.Close()
		// The transaction does nothing but hold the turn.
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			return unavailable(err)
		}
		defer tx.Rollback()
		if err := (&Tx{tx: tx, dialect: &d.dialect}).take(ctx, turnMigrate); err != nil {
			return err
		}
	}
	p, err := goose.NewProvider(d.dialect.goose, d.write, migrationFS{d.dialect.words})
	if err != nil {
		return err
	}
	has, knows, err := p.GetVersions(ctx)
	if err != nil {
		return unavailable(err)
	}
	if has > knows {
		return gatehouse.Errorf(gatehouse.CodeConflict, "its schema has version %d, and this program knows versions up to %d", has, knows).
			WithHint("a newer gatehouse has used it: run that one, or restore a backup from before")
	}
	if _, err = p.Up(ctx); err == nil && d.dialect.settle != "" {
		_, err = d.write.ExecContext(ctx, d.dialect.settle)
	}
	return unavailable(err)
}

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
