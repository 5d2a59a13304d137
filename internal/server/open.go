package server

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// Data is what an installation keeps, opened without a server round it.
type Data struct {
	DB         *db.DB
	Store      blob.Store
	Content    *content.Content
	Advisories *pipeline.Advisories

	stop []func() error // in reverse order
}

// OpenContent opens the data that cfg names, for commands that work on it
// without a server. Where everything lies in the data directory, no server may
// run on it meanwhile. The caller closes it.
// Errors: CodeInvalid for settings that cannot work, CodeConflict if a server
// has the data directory or another installation the storage, CodeUnavailable if a database does not answer.
func OpenContent(ctx context.Context, cfg config.Config, getenv func(string) string) (*Data, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	return openData(ctx, cfg, getenv, db.Options{}, slog.New(slog.DiscardHandler), func(s blob.Store) blob.Store { return s })
}

// Close closes everything in reverse order.
func (d *Data) Close() error {
	var first error
	for i := len(d.stop) - 1; i >= 0; i-- {
		if err := d.stop[i](); err != nil && first == nil {
			first = err
		}
	}
	d.stop = nil
	return first
}

// openData opens database, storage and what stands on both; wrap may put
// something round the storage.
func openData(ctx context.Context, cfg config.Config, getenv func(string) string, opts db.Options, log *slog.Logger, wrap func(blob.Store) blob.Store) (_ *Data, err error) {
	for _, sub := range []string{"", "keys"} {
		if err := os.MkdirAll(filepath.Join(cfg.Data, sub), 0o700); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't make the data directory: %w", err)
		}
	}
	d := &Data{}
	defer func() {
		if err != nil {
			_ = d.Close()
		}
	}()
	url, err := cfg.DatabaseURL()
	if err != nil {
		return nil, err
	}
	if url == "" || cfg.Storage == "" { // PostgreSQL and S3 together have many processes
		unlock, err := lockDir(cfg.Data)
		if err != nil {
			return nil, err
		}
		d.stop = append(d.stop, unlock)
	}
	opts.Alone = cfg.Storage == ""
	if d.DB, err = openDatabase(ctx, url, cfg.Data, opts); err != nil {
		return nil, err
	}
	d.stop = append(d.stop, d.DB.Close)
	if url == "" { // the rows are ours alone: what is claimed, a dead process claimed
		if err := d.DB.Write(ctx, func(tx *db.Tx) error { return tx.EndLeases(ctx) }); err != nil {
			return nil, err
		}
	}
	store, err := openStore(ctx, cfg, getenv, d.DB)
	if err != nil {
		return nil, err
	}
	d.Store = wrap(store)
	if d.Advisories, err = pipeline.OpenAdvisories(d.DB, d.Store, filepath.Join(cfg.Data, "advisories")); err != nil {
		return nil, err
	}
	d.stop = append(d.stop, d.Advisories.Close)
	d.Content = content.New(d.DB, d.Store, content.Options{OnPush: pipeline.Pushed, OnAttached: pipeline.Attached, MaySign: pipeline.MaySign, GC: gcOptions(cfg, log)})
	d.stop = append(d.stop, d.Content.Close)
	return d, nil
}

// CheckURLs reads the URLs of database and storage as a server does, and
// contacts nobody. Errors: CodeInvalid.
func CheckURLs(cfg config.Config, getenv func(string) string) error {
	url, err := cfg.DatabaseURL()
	if err == nil && url != "" {
		err = db.CheckPostgres(url)
	}
	if err == nil && cfg.Storage != "" {
		err = s3.Check(cfg.Storage, getenv)
	}
	return err
}

// openDatabase is the one place that knows which databases there are.
func openDatabase(ctx context.Context, url, dir string, opts db.Options) (*db.DB, error) {
	if url != "" {
		return db.OpenPostgres(ctx, url, opts)
	}
	return db.OpenSQLite(ctx, filepath.Join(dir, "meta.db"), opts)
}

// openStore is the one place that knows which storages there are. A bucket
// becomes that of the database's installation.
func openStore(ctx context.Context, cfg config.Config, getenv func(string) string, d *db.DB) (blob.Store, error) {
	if cfg.Storage != "" {
		installation, err := d.Installation(ctx)
		if err != nil {
			return nil, err
		}
		// The operator named it: it may lie in a private network.
		out := egress.New(egress.Config{UserTyped: true, Proxies: egress.ProxiesFrom(getenv), UserAgent: "gatehouse"})
		return s3.Open(ctx, cfg.Storage, s3.Options{Getenv: getenv, Transport: out.Transport(), Installation: installation})
	}
	return disk.Open(cfg.Data)
}
