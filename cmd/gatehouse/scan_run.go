package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/index/licence"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// scanRun is one target on its way: a source fills in target and inventory, and
// the advisories give findings.
type scanRun struct {
	app       *app
	opts      scanOptions
	matcher   matcher
	started   time.Time
	target    report.Target
	inventory gatehouse.Inventory
	database  report.Database
	findings  []gatehouse.Finding
	malware   []gatehouse.Finding // that clamd named
	created   time.Time           // as the image's author says
	broken    bool                // a layer could not be read to its end: look again next time
}

// look finds out what is inside the target and what is wrong with it.
func (r *scanRun) look(ctx context.Context, source func(context.Context, *scanRun) error) error {
	if err := source(ctx, r); err != nil {
		return err
	}
	r.narrow()
	found, database, err := r.matcher.Match(ctx, &r.inventory)
	if err != nil {
		return err
	}
	r.database = database
	r.findings = append(append(found, r.inventory.Findings...), r.malware...)
	if slices.Contains(r.opts.wants, gatehouse.KindLicense) {
		r.findings = append(r.findings, licence.Findings(r.inventory, r.opts.licensePolicy)...)
	}
	gatehouse.SortFindings(r.findings)
	return r.suppress()
}

// narrow drops the packages that --pkg-types leaves out, before anything asks
// whether advisories cover them.
func (r *scanRun) narrow() {
	if slices.Contains(r.opts.pkgTypes, "os") && slices.Contains(r.opts.pkgTypes, "library") {
		return
	}
	r.inventory.Packages = slices.DeleteFunc(slices.Clone(r.inventory.Packages), func(p gatehouse.Package) bool { return !r.opts.packages(p) })
}

// find looks for the image in the stores of this machine and in its registry,
// in the order of --image-src.
func (r *scanRun) find(ctx context.Context, typed string) error {
	ref, refErr := gatehouse.ParseRef(typed)
	var local []string
	remote := false
	for _, s := range r.opts.imageSrc {
		if s == "remote" {
			remote = true
			break // what stands behind it is asked if it fails, which would hide why
		}
		local = append(local, s)
	}
	// Who names a server means what is there.
	if r.opts.server != "" && !r.opts.imageSrcTyped() {
		local = nil
	}
	o := r.opts.local
	o.Getenv, o.Unix = r.app.getenv, r.app.egress().Unix
	stores, err := fetch.LocalStores(local, o)
	if err != nil {
		return err
	}
	var unavailable, elsewhere error
	for _, s := range stores {
		found, err := s.Find(ctx, typed, ref, r.opts.platformOf)
		switch {
		case err == nil:
			// Not found: the store has it for another platform only.
			if err = r.local(ctx, typed, ref, found); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
				return err
			}
			elsewhere = err
		case gatehouse.CodeOf(err) != gatehouse.CodeNotFound:
			unavailable = err
			if r.app.verbose {
				r.app.say("%s: %v", s.Name(), err)
			}
		}
	}
	switch {
	case refErr != nil:
		return refErr
	case elsewhere != nil && (!remote || r.opts.offline):
		return elsewhere
	case !remote && unavailable != nil:
		return unavailable
	case !remote:
		return gatehouse.Errorf(gatehouse.CodeNotFound, "%s is in none of %s", typed, strings.Join(local, ", ")).WithHint("add remote to --image-src to ask its registry")
	case r.opts.offline:
		return gatehouse.Errorf(gatehouse.CodeNotFound, "%s is not on this machine, and --offline forbids to ask its registry", typed).
			WithHint("leave --offline out, or scan a file with --input")
	}
	return r.remote(ctx, ref, typed)
}

func (o scanOptions) imageSrcTyped() bool {
	return !slices.Equal(o.imageSrc, []string{"docker", "containerd", "podman", "remote"})
}

// local scans an image of a store on this machine.
func (r *scanRun) local(ctx context.Context, typed string, ref gatehouse.Ref, found *fetch.Local) error {
	key := strings.Join([]string{found.Store, found.Key, typed, r.opts.platformOf.String()}, " ")
	return r.cached(key, func() (*fetch.Image, error) {
		r.progress("reading %s from %s", typed, found.Store)
		return found.Open(ctx)
	}, func(img *fetch.Image) error {
		name := typed
		if ref.Repo != "" {
			name = ref.String()
		}
		r.target = targetOf(name, img, found.Store)
		return r.image(ctx, img, true)
	})
}

// remote scans an image of a registry. Its manifest is asked for each time; its
// digest says whether the image was looked at before.
func (r *scanRun) remote(ctx context.Context, ref gatehouse.Ref, typed string) error {
	img, err := r.app.registryClient(r.opts.insecure, r.opts.server).Image(ctx, ref, r.opts.platformOf)
	if err != nil {
		return localImage(err, ref, typed)
	}
	defer img.Close()
	target := targetOf(ref.String(), img, "remote")
	key := "manifest " + string(img.Ref.Digest)
	return r.cached(key, func() (*fetch.Image, error) { return img, nil }, func(img *fetch.Image) error {
		r.target = target
		return r.image(ctx, img, true)
	}, func() { r.target = target })
}

// targetOf says what was scanned. Of an index it is one image; which others
// there are is told, too.
func targetOf(name string, img *fetch.Image, source string) report.Target {
	t := report.Target{Reference: name, Digest: img.Ref.Digest, Platform: img.Platform.String(), Source: source, Index: img.Index}
	for _, p := range img.Platforms {
		t.Platforms = append(t.Platforms, p.String())
	}
	return t
}

// localImage adds to an error how to scan an image that only another machine's
// daemon has: its name reads like one of docker.io.
func localImage(err error, ref gatehouse.Ref, typed string) error {
	var e *gatehouse.Error
	if ref.Registry != "docker.io" || !errors.As(err, &e) || e.Hint != "" && e.Code != gatehouse.CodeDenied {
		return err
	}
	return gatehouse.Errorf(e.Code, "%w", err).
		WithHint("no store on this machine has it either; if another machine does: docker save %s -o image.tar, then gatehouse scan --input image.tar", typed)
}

// archive scans an image in a file. A file that has not changed since it was
// looked at is not read again.
func (r *scanRun) archive(ctx context.Context, file string) error {
	name := file
	if file == "-" {
		file = "/dev/stdin"
	}
	key, before := "", inputIdentity(file)
	if before != "" {
		key = strings.Join([]string{"file", before, name, r.opts.platformOf.String()}, " ")
	}
	return r.cached(key, func() (*fetch.Image, error) {
		return fetch.Archive(ctx, file, fetch.ArchiveOptions{Platform: r.opts.platformOf})
	}, func(img *fetch.Image) error {
		if img.Name != "" {
			name = img.Name
		}
		r.target = targetOf(name, img, "file")
		// A registry is held to its digests by everybody who pulls; a file is
		// not, so its bytes are read again.
		err := r.image(ctx, img, false)
		r.broken = r.broken || inputIdentity(file) != before // it changed meanwhile
		return err
	})
}

// cached answers from the cache of images, or opens and looks and puts the
// answer there. An empty key is never cached. known is called when the cache had
// it.
func (r *scanRun) cached(key string, open func() (*fetch.Image, error), look func(*fetch.Image) error, known ...func()) error {
	cache := r.app.imageCache(r.opts.cacheDir, r.analysisVersion())
	if r.opts.clamd != "" {
		key = "" // clamd is to see the bytes, whatever is known of them
	}
	if key != "" {
		if hit, ok := cache.get(key); ok {
			r.target, r.inventory, r.created = hit.Target, hit.Inventory, hit.Created
			for _, f := range known {
				f()
			}
			return nil
		}
	}
	img, err := open()
	if err != nil {
		return err
	}
	defer img.Close()
	if err := look(img); err != nil {
		return err
	}
	if key != "" && !r.broken {
		cache.put(key, cachedImage{Target: r.target, Inventory: r.inventory, Created: r.created})
	}
	return nil
}

// registryClient reaches what the user names, with the user's own logins, and at
// the host of --server with the name that is used there.
func (a *app) registryClient(insecure bool, server string) *fetch.Client {
	cfg := egress.Config{UserTyped: true, Proxies: egress.ProxiesFrom(a.getenv), UserAgent: "gatehouse/" + a.version()}
	if insecure {
		cfg.UnverifiedTLS = []string{"*"}
	}
	o := fetch.Options{Transport: tracer{a, egress.New(cfg).Transport()}, Credentials: fetch.LoginFiles(a.getenv)}
	if server != "" {
		if c, err := a.client(server); err == nil && c.user != "" {
			o.Credentials = fetch.FirstOf(fetch.Password(c.base.Host, c.user, c.password), o.Credentials)
		}
	}
	if insecure {
		o.Insecure = []string{"*"}
	}
	return fetch.New(o)
}

// parallelMax is how many layers are read at once: more inflate no faster.
const parallelMax = 4

// image reads the layers that the cache does not know, several at once. trusted
// says that the digests of the layers are those of their bytes.
func (r *scanRun) image(ctx context.Context, img *fetch.Image, trusted bool) error {
	var cfg gatehouse.ImageConfig
	if err := json.Unmarshal(img.Config, &cfg); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the image configuration is not valid JSON: %w", err)
	}
	r.created = createdAt(img.Config)
	cache := r.app.layerCache(r.opts.cacheDir, r.analysisVersion())
	layers := make([]gatehouse.LayerInventory, len(img.Layers))
	bar := r.newBar(img.Layers)
	defer bar.end()
	workers := r.opts.parallel
	if workers <= 0 {
		workers = min(runtime.GOMAXPROCS(0), parallelMax)
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i, l := range img.Layers {
		if inv, ok := cache.get(l.Digest); ok && trusted {
			layers[i] = inv
			bar.known(l)
			continue
		}
		g.Go(func() error {
			inv, err := r.readLayer(gctx, bar.watch(i, l))
			if err != nil && !incomplete(err) {
				return err
			}
			layers[i] = inv
			if err == nil {
				cache.put(inv)
				return nil
			}
			mu.Lock()
			r.broken = true
			mu.Unlock()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := r.compose(layers, cfg, img.Ref.Digest); err != nil {
		return err
	}
	scanner, err := r.clamd()
	if err != nil || scanner == nil {
		return err
	}
	return r.malwareInImage(ctx, scanner, img, layers)
}

// incomplete reports whether the layer itself is to blame: it is then partly
// indexed, and the report says so.
func incomplete(err error) bool {
	code := gatehouse.CodeOf(err)
	return code == gatehouse.CodeInvalid || code == gatehouse.CodeTooLarge
}

func (r *scanRun) readLayer(ctx context.Context, l fetch.Layer) (gatehouse.LayerInventory, error) {
	body, err := l.Open(ctx)
	if err != nil {
		return gatehouse.LayerInventory{}, err
	}
	defer body.Close()
	return r.indexLayer(ctx, body)
}

// directory scans a root file system, or sources.
func (r *scanRun) directory(ctx context.Context, dir string, sources bool) error {
	what := "root file system"
	if sources {
		what = "directory"
	}
	fsys, closer, err := openDirectory(dir, sources)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't open the %s: %w", what, err).WithHint("name a directory that exists")
	}
	defer closer.Close()
	inv, err := r.indexDirectory(ctx, fsys, sources)
	if err != nil && !incomplete(err) {
		return err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	r.target = report.Target{Reference: abs, Source: "directory"}
	if err := r.compose([]gatehouse.LayerInventory{inv}, gatehouse.ImageConfig{}, ""); err != nil {
		return err
	}
	if sources {
		r.sources()
	}
	scanner, err := r.clamd()
	if err != nil || scanner == nil {
		return err
	}
	return r.malwareInDirectory(ctx, scanner, fsys, inv)
}

// openDirectory opens dir so that no link leads out of it. Of sources a single
// file may be named.
func openDirectory(dir string, sources bool) (fs.FS, *os.Root, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, nil, err
	}
	if sources && info.Mode().IsRegular() {
		root, err := os.OpenRoot(filepath.Dir(dir))
		if err != nil {
			return nil, nil, err
		}
		return oneFile{root.FS(), filepath.Base(dir)}, root, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	return root.FS(), root, nil
}

// oneFile shows one file of a directory.
type oneFile struct {
	fs.FS
	name string
}

func (o oneFile) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(o.FS, name)
	return slices.DeleteFunc(all, func(d fs.DirEntry) bool { return d.Name() != o.name }), err
}
