package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

func (a *app) dbCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "db",
		Short: "the advisory database: what is known to be wrong with which package",
		Example: `  gatehouse db update
  gatehouse db import Debian/all.zip npm/all.zip
  gatehouse db export advisories.tar
  gatehouse db status`,
	})
	cmd.AddCommand(a.dbUpdateCmd(), a.dbImportCmd(), a.dbExportCmd(), a.dbRemoveCmd(), a.dbStatusCmd())
	return cmd
}

// database is the advisory file of commands without a server, held against other
// processes that would change it, with a directory for what is on its way in.
type database struct {
	path, temp string
	meta       advisory.Meta
	exists     bool
	unlock     func() error
}

// tempPattern is what that directory is called.
const tempPattern = ".gatehouse-db-"

// openDatabase takes the advisory file to change it. It waits for others that do.
func (a *app) openDatabase(ctx context.Context, named string) (d *database, err error) {
	d = &database{}
	if d.path, err = a.advisoryFile(named); err != nil {
		return nil, err
	}
	dir := filepath.Dir(d.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't make the directory of the advisory database: %w", err)
	}
	if err := a.lockDatabase(ctx, d); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if err := d.clean(dir); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't remove what a killed process left beside the advisory database: %w", err)
	}
	if d.temp, err = os.MkdirTemp(dir, filepath.Base(d.path)+tempPattern); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write beside the advisory database: %w", err)
	}
	f, err := advisory.Open(d.path)
	if errors.Is(err, os.ErrNotExist) || gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	d.meta, d.exists = f.Meta(), true
	return d, f.Close()
}

// clean removes what a process left behind that was killed.
func (d *database) clean(dir string) error {
	err := advisory.Clean(d.path)
	list, listed := os.ReadDir(dir)
	err = errors.Join(err, listed)
	for _, e := range list {
		if strings.HasPrefix(e.Name(), filepath.Base(d.path)+tempPattern) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

func (a *app) lockDatabase(ctx context.Context, d *database) error {
	for told := false; ; told = true {
		unlock, taken, err := tryLock(d.path + ".lock")
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't lock the advisory database: %w", err)
		}
		if taken {
			d.unlock = unlock
			return nil
		}
		if !told {
			a.say("waiting for another gatehouse that changes %s", d.path)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// close gives the file back.
func (d *database) close() {
	if d.temp != "" {
		_ = os.RemoveAll(d.temp) // else the next one does
	}
	if d.unlock != nil {
		_ = d.unlock() // which the end of the process does, too
	}
}

// prev is what a new file is built upon.
func (d *database) prev() string {
	if d.exists {
		return d.path
	}
	return ""
}

// stateFileMax bounds the file of the feeds' states, in bytes.
const stateFileMax = 4 << 20

func stateFile(database string) string { return database + ".feeds.json" }

// readStates reads what is known of feeds besides what the database holds of
// them. Without it they are asked for everything.
func readStates(database string) map[string]update.State {
	out := map[string]update.State{}
	f, err := os.Open(stateFile(database))
	if err != nil {
		return out
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, stateFileMax))
	var doc struct{ Feeds []update.State }
	if err != nil || json.Unmarshal(b, &doc) != nil {
		return out
	}
	for _, s := range doc.Feeds {
		out[s.Feed] = s
	}
	return out
}

// writeStates keeps the states of the feeds beside the database.
func writeStates(d *database, states []update.State) error {
	b, err := json.MarshalIndent(map[string]any{"feeds": states}, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(d.temp, "states")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't keep the states of the feeds: %w", err)
	}
	if err := os.Rename(tmp, stateFile(d.path)); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't keep the states of the feeds: %w", err)
	}
	return nil
}
