package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

// importOptions are the flags of db import.
type importOptions struct {
	db, server, feed string
	force, insecure  bool
}

func (a *app) dbImportCmd() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "load advisories from files",
		Long: `Import reads files of advisories, whatever they are called: OSV records (OSV.dev's
all.zip of an ecosystem, or JSON), Trivy's database (trivy.db, or the tar.gz of its
OCI artifact), NVD's JSON 2.0, CISA's KEV list and FIRST's EPSS scores. Records are
added; those that are there already are replaced. All files come into force at once,
and one malformed record refuses all of them.

A file of gatehouse db export, or oci://REFERENCE of one that was pushed, replaces
the database by the one in it, whose digests are checked. One that is older than what
is there is refused without --force.

With --server the advisories go to that server, which matches every image that
it stores at once; nothing is read again.`,
		Example: `  gatehouse db import Debian/all.zip npm/all.zip
  gatehouse db import --feed osv/Debian Debian/all.zip
  gatehouse db import advisories.tar
  gatehouse db import --server https://registry.example CVE-2026-0001.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.feed != "" && len(args) > 1 {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--feed is about one file, and there are %d", len(args)).WithHint("import them one after the other")
			}
			if o.server != "" {
				return a.importToServer(cmd.Context(), o, args)
			}
			return a.importToFile(cmd.Context(), o, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.db, "db", "", "the advisory file to write (default: in the cache directory)")
	f.StringVar(&o.server, "server", "", "send the advisories to this server (URL) instead")
	f.StringVar(&o.feed, "feed", "", "take the file for the whole of this feed (osv/Debian): its records that are missing are gone")
	f.BoolVar(&o.force, "force", false, "replace the database also by an older one")
	f.BoolVar(&o.insecure, "insecure", false, "speak to the registry without TLS")
	return cmd
}

// source is one opened argument of db import.
type source struct {
	pub     gatehouse.Publication
	whole   *update.Found // a whole database instead
	closers []func()
}

func (s *source) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

func (a *app) importToFile(ctx context.Context, o importOptions, names []string) error {
	d, err := a.openDatabase(ctx, o.db)
	if err != nil {
		return err
	}
	defer d.close()
	start := time.Now()
	var pubs []gatehouse.Publication
	for _, name := range names {
		s, err := a.openSource(ctx, o, name, d.temp)
		if err != nil {
			return err
		}
		defer s.close()
		if s.whole == nil {
			pubs = append(pubs, s.pub)
			continue
		}
		if len(names) > 1 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s replaces the whole database, so that nothing else can be imported with it", name).
				WithHint("import it alone, then the others")
		}
		if err := d.replace(ctx, s.whole.File, o.force); err != nil {
			return gatehouse.Errorf(gatehouse.CodeOf(err), "%s: %w", name, err)
		}
		a.done("%d advisories, newest of %s, in %s (%.1f s)", d.meta.Records, day(d.meta.UpdatedAt), d.path, time.Since(start).Seconds())
		return nil
	}
	meta, err := advisory.BuildAll(ctx, d.path, d.prev(), advisory.Info{BuiltAt: start.UTC()}, pubs)
	if err != nil {
		return err
	}
	a.done("%d advisories, newest of %s, in %s (%.1f s)", meta.Records, day(meta.UpdatedAt), d.path, time.Since(start).Seconds())
	return nil
}

// openSource opens what one argument names.
func (a *app) openSource(ctx context.Context, o importOptions, name, dir string) (*source, error) {
	if strings.HasPrefix(name, "oci://") {
		ref, err := update.ParseRepository(name, "latest")
		if err != nil {
			return nil, err
		}
		found, err := update.OpenRef(ctx, a.registryClient(o.insecure, "").Registry(ref.Registry), ref, dir)
		return foundSource(ctx, o, name, dir, found, err)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, unreadable(err)
	}
	layout := info.IsDir()
	f, err := os.Open(name)
	if err != nil {
		return nil, unreadable(err)
	}
	if layout || update.IsTar(f) {
		defer f.Close()
		l, err := fetch.OpenLayout(ctx, name)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeOf(err), "%s: %w", name, err)
		}
		defer l.Close()
		found, err := update.Open(ctx, l, dir)
		return foundSource(ctx, o, name, dir, found, err)
	}
	return fileSource(ctx, o, name, dir, f, info.Size())
}

func unreadable(err error) error {
	e := gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read advisories: %w", err)
	if errors.Is(err, fs.ErrNotExist) {
		return e.WithHint("name files: OSV's all.zip of an ecosystem, Trivy's database, NVD, KEV, EPSS, or one of `gatehouse db export`")
	}
	return e
}

// foundSource is what an OCI artifact holds.
func foundSource(ctx context.Context, o importOptions, name, dir string, found *update.Found, err error) (*source, error) {
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeOf(err), "%s: %w", name, err)
	}
	if found.Kind == update.TypeArtifact {
		s := &source{whole: found, closers: []func(){found.Discard}}
		if o.feed != "" {
			s.close()
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is a whole database, and no feed", name).WithHint("leave --feed out")
		}
		return s, nil
	}
	o.feed = update.NameTrivy
	s, err := fileSource(ctx, o, name, dir, found.File, found.Size)
	if err != nil {
		found.Discard()
		return nil, err
	}
	s.pub.Version = found.Version
	s.closers = append([]func(){found.Discard}, s.closers...)
	return s, nil
}

// fileSource is what the file of a feed publishes. It takes f over when it
// succeeds.
func fileSource(ctx context.Context, o importOptions, name, dir string, f *os.File, size int64) (*source, error) {
	opened, err := feed.Open(ctx, name, f, size, feed.Options{TempDir: dir})
	if err != nil {
		_ = f.Close() // it was only read
		return nil, err
	}
	s := &source{pub: opened.Publication, closers: []func(){func() { _ = f.Close() }, func() { _ = opened.Close() }}}
	if o.feed != "" {
		s.pub.Feed, s.pub.Whole = o.feed, true
	}
	return s, nil
}

// holds tells whether a digest is that of the file that is there.
func (d *database) holds(_ context.Context, want gatehouse.Digest) (bool, error) {
	h := want.Hash()
	if !d.exists || h == nil {
		return false, nil
	}
	f, err := os.Open(d.path)
	if err != nil {
		return false, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the advisory database: %w", err)
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return false, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the advisory database: %w", err)
	}
	return gatehouse.NewDigest(want.Algorithm(), h.Sum(nil)) == want, nil
}

// replace puts a whole database in the place of this one.
func (d *database) replace(ctx context.Context, file *os.File, force bool) error {
	f, err := advisory.Open(file.Name())
	if err != nil {
		return err
	}
	meta := f.Meta()
	if err := f.Close(); err != nil {
		return err
	}
	if !force && d.exists {
		if err := update.NotOlder(d.meta.UpdatedAt, meta.UpdatedAt); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := errors.Join(file.Chmod(0o644), file.Sync(), os.Rename(file.Name(), d.path)); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the advisory database: %w", err)
	}
	d.meta = meta
	return nil
}

func (a *app) importToServer(ctx context.Context, o importOptions, names []string) error {
	c, err := a.client(o.server)
	if err != nil {
		return err
	}
	for _, name := range names {
		start := time.Now()
		gen, err := a.sendAdvisories(ctx, c, o, name)
		if err != nil {
			return err
		}
		a.done("%s: the server has %d advisories; every verdict answers by them (%.1f s)", name, gen.Records, time.Since(start).Seconds())
	}
	return nil
}

// sendAdvisories sends one file to a server, or what a reference names.
func (a *app) sendAdvisories(ctx context.Context, c *client, o importOptions, name string) (gen generation, err error) {
	query := url.Values{"name": {filepath.Base(name)}}
	if o.feed != "" {
		query.Set("feed", o.feed)
	}
	if o.force {
		query.Set("force", "true")
	}
	path := name
	if strings.HasPrefix(name, "oci://") { // a server takes files
		dir, err := os.MkdirTemp("", "gatehouse-import-*")
		if err != nil {
			return gen, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't keep the artifact: %w", err)
		}
		defer os.RemoveAll(dir)
		if path, err = a.fileOfArtifact(ctx, o, name, dir, query); err != nil {
			return gen, gatehouse.Errorf(gatehouse.CodeOf(err), "%s: %w", name, err)
		}
	}
	body, err := os.Open(path)
	if err != nil {
		return gen, unreadable(err)
	}
	defer body.Close()
	if info, err := body.Stat(); err == nil && info.IsDir() {
		return gen, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is a directory, and a server takes files", name).WithHint("pack it: tar -cf advisories.tar -C %s .", name)
	}
	return gen, c.do(ctx, "POST", "/api/v1/advisories", query, body, &gen)
}

// fileOfArtifact brings what a reference names into a file that a server takes,
// and says in query what it is.
func (a *app) fileOfArtifact(ctx context.Context, o importOptions, name, dir string, query url.Values) (path string, err error) {
	ref, err := update.ParseRepository(name, "latest")
	if err != nil {
		return "", err
	}
	found, err := update.OpenRef(ctx, a.registryClient(o.insecure, "").Registry(ref.Registry), ref, dir)
	if err != nil {
		return "", err
	}
	defer found.File.Close()
	if found.Kind == update.TypeTrivy {
		query.Set("feed", update.NameTrivy)
		return found.File.Name(), nil
	}
	packed, err := update.Pack(ctx, found.File.Name(), dir, found.About)
	if err != nil {
		return "", err
	}
	out, err := os.Create(filepath.Join(dir, "advisories.tar"))
	if err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't keep the artifact: %w", err)
	}
	return out.Name(), errors.Join(packed.WriteLayout(out), out.Close())
}
