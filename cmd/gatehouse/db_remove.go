package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

func (a *app) dbRemoveCmd() *cobra.Command {
	var db, server string
	cmd := &cobra.Command{
		Use:   "remove FEED...",
		Short: "take a feed out of the advisory database",
		Long: `Remove takes feeds out with all that they brought; what other feeds say stays. A
feed that is updated no more, or no longer in the settings of a server, keeps its
records otherwise: advisories must not vanish because a line was edited. NAME/ with
nothing behind the slash is all parts of a group.

With --server it is that server's database, and every image that it stores is
matched anew. A feed that its settings name cannot be removed.`,
		Example: `  gatehouse db remove osv/npm
  gatehouse db remove nvd/
  gatehouse db remove --server https://registry.example osv/npm`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if server != "" {
				return a.removeFromServer(cmd.Context(), server, args)
			}
			return a.removeFromFile(cmd.Context(), db, args)
		},
	}
	cmd.Flags().StringVar(&db, "db", "", "the advisory file (default: in the cache directory)")
	cmd.Flags().StringVar(&server, "server", "", "take the feeds out of this server's database (URL)")
	return cmd
}

func (a *app) removeFromFile(ctx context.Context, db string, names []string) error {
	d, err := a.openDatabase(ctx, db)
	if err != nil {
		return err
	}
	defer d.close()
	gone, err := d.meta.Named(names)
	if err != nil {
		return err
	}
	d.meta, err = advisory.BuildAll(ctx, d.path, d.prev(), advisory.Info{BuiltAt: time.Now().UTC(), Remove: gone}, nil)
	if err != nil {
		return err
	}
	states := readStates(d.path)
	for _, name := range gone {
		delete(states, name)
	}
	sorted := slices.SortedFunc(maps.Values(states), func(a, b update.State) int { return cmp.Compare(a.Feed, b.Feed) })
	if err := writeStates(d, sorted); err != nil {
		return err
	}
	a.done("%s gone, %s left, in %s", strings.Join(gone, ", "), counted(int64(d.meta.Records), "record"), d.path)
	return nil
}

func (a *app) removeFromServer(ctx context.Context, server string, names []string) error {
	c, err := a.client(server)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"feeds": names})
	if err != nil {
		return err
	}
	var gen generation
	if err := c.do(ctx, http.MethodPost, "/api/v1/feeds/remove", nil, bytes.NewReader(body), &gen); err != nil {
		return err
	}
	a.done("%s gone, the server has %s left; every verdict answers by them", strings.Join(names, ", "), counted(int64(gen.Records), "record"))
	return nil
}
