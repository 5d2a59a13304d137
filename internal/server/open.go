package server

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// Data is what an installation keeps, opened without a server round it.
type Data struct {
	Content *content.Content

	stop []func() error
}

// OpenContent opens the data that cfg names, for commands that work on it
// without a server. The caller closes it.
// Errors: CodeInvalid for settings that cannot work, CodeConflict if a server
// has the data directory.
func OpenContent(ctx context.Context, cfg config.Config, _ func(string) string) (*Data, error) {
	unlock, err := lockDir(cfg.Data)
	if err != nil {
		return nil, err
	}
	d := &Data{stop: []func() error{unlock}}
	rows, err := db.OpenSQLite(ctx, filepath.Join(cfg.Data, "meta.db"), db.Options{})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.stop = append(d.stop, rows.Close)
	store, err := disk.Open(cfg.Data)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.Content = content.New(rows, store, content.Options{OnPush: pipeline.Pushed})
	return d, nil
}

// Close closes everything in reverse order.
func (d *Data) Close() error {
	var errs []error
	for i := len(d.stop) - 1; i >= 0; i-- {
		errs = append(errs, d.stop[i]())
	}
	d.stop = nil
	return errors.Join(errs...)
}
