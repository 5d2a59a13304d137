package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/server"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

func (a *app) dbExportCmd() *cobra.Command {
	var db, from string
	var insecure bool
	cmd := &cobra.Command{
		Use:   "export FILE|oci://REFERENCE",
		Short: "write the advisory database as one file, for where there is no network",
		Long: `Export packs the whole advisory database into one OCI artifact: a file, or the
manifest of a reference in a registry. gatehouse db import takes it, with --server
also into a server, and checks its digests.

With --server it is the database in force of that server.`,
		Example: `  gatehouse db export advisories.tar
  gatehouse db export oci://registry.example/security/advisories:latest
  gatehouse db export --server https://registry.example advisories.tar`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			write := func(ctx context.Context, w io.Writer) error { return a.packDatabase(ctx, db, w) }
			if from != "" {
				write = func(ctx context.Context, w io.Writer) error { return a.downloadExport(ctx, from, w) }
			}
			if strings.HasPrefix(args[0], "oci://") {
				return a.exportToRegistry(cmd.Context(), args[0], from, insecure, write)
			}
			return a.exportToFile(cmd.Context(), args[0], write)
		},
	}
	f := cmd.Flags()
	f.StringVar(&db, "db", "", "the advisory file (default: in the cache directory)")
	f.StringVar(&from, "server", "", "export the database of this server (URL)")
	f.BoolVar(&insecure, "insecure", false, "speak to the registry without TLS")
	return cmd
}

// packDatabase writes the artifact of the local advisory file.
func (a *app) packDatabase(ctx context.Context, named string, w io.Writer) error {
	path, err := a.advisoryFile(named)
	if err != nil {
		return err
	}
	f, err := advisory.Open(path)
	if err != nil {
		return noDatabase(err, path)
	}
	meta := f.Meta()
	if err := f.Close(); err != nil {
		return err
	}
	packed, err := update.Pack(ctx, path, os.TempDir(), server.AboutMeta(meta))
	if err != nil {
		return err
	}
	defer packed.Discard()
	return packed.WriteLayout(w)
}

// downloadExport writes the artifact that a server makes.
func (a *app) downloadExport(ctx context.Context, from string, w io.Writer) error {
	c, err := a.client(from)
	if err != nil {
		return err
	}
	body, err := c.stream(ctx, http.MethodGet, "/api/v1/advisories/export", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's answer broke off: %w", err)
	}
	return nil
}

// exportToFile writes a file, whole or not at all, and reads it again.
func (a *app) exportToFile(ctx context.Context, path string, write func(context.Context, io.Writer) error) error {
	start := time.Now()
	tmp, about, err := a.exported(ctx, filepath.Dir(path), write)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) // after the rename there is nothing left to remove
	info, err := os.Stat(tmp)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write %s: %w", path, err)
	}
	a.done("%d advisories, newest of %s, in %s, %d bytes (%.1f s)", about.Records, day(about.UpdatedAt), path, info.Size(), time.Since(start).Seconds())
	return nil
}

// exported writes the artifact into a new file in dir and verifies it.
func (a *app) exported(ctx context.Context, dir string, write func(context.Context, io.Writer) error) (path string, about update.About, err error) {
	out, err := os.CreateTemp(dir, ".gatehouse-export-*")
	if err != nil {
		return "", about, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the export: %w", err).WithHint("name a file in a directory that exists")
	}
	defer func() {
		if err != nil {
			_ = os.Remove(out.Name()) // it is of no use
		}
	}()
	err = write(ctx, out)
	if err == nil {
		err = out.Chmod(0o644)
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return "", about, err
	}
	l, err := fetch.OpenLayout(ctx, out.Name())
	if err != nil {
		return "", about, err
	}
	defer l.Close()
	about, err = update.Verify(ctx, l, dir)
	return out.Name(), about, err
}

// exportToRegistry pushes the artifact, with the login that is used for from.
func (a *app) exportToRegistry(ctx context.Context, to, from string, insecure bool, write func(context.Context, io.Writer) error) error {
	ref, err := update.ParseRepository(to, "latest")
	if err != nil {
		return err
	}
	if ref.Digest != "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s names a digest, which the export will have and nobody knows yet", to).WithHint("name a tag")
	}
	start := time.Now()
	tmp, about, err := a.exported(ctx, os.TempDir(), write)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	l, err := fetch.OpenLayout(ctx, tmp)
	if err != nil {
		return err
	}
	defer l.Close()
	digest, err := update.Copy(ctx, l, a.registryClient(insecure, from).Registry(ref.Registry), ref)
	if err != nil {
		return err
	}
	ref.Digest = digest
	a.done("%d advisories, newest of %s, in %s (%.1f s)", about.Records, day(about.UpdatedAt), ref, time.Since(start).Seconds())
	return nil
}
