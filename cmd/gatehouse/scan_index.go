package main

import (
	"context"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// checkSkips reads --skip-dirs and --skip-files. They are part of what a walk
// looks for, so that answers with and without them are kept apart.
func (o *scanOptions) checkSkips() error {
	o.analysis = index.All()
	if len(o.skipDirs)+len(o.skipFile) == 0 {
		return nil
	}
	var err error
	o.analysis.Skip, err = index.NewSkip(o.skipDirs, o.skipFile)
	return err
}

// analysisVersion names what the walk answers by. An image is always looked at
// for everything: the next scan may ask for it, and layers are read once.
func (r *scanRun) analysisVersion() string { return r.analysis().Version() }

func (r *scanRun) analysis() index.Analysis {
	if r.opts.analysis.Extractors == nil { // without flags
		return index.All()
	}
	return r.opts.analysis
}

func (r *scanRun) indexLayer(ctx context.Context, body io.Reader) (gatehouse.LayerInventory, error) {
	return index.Layer(ctx, body, index.DefaultLimits(), r.analysis())
}

// indexDirectory looks for what was asked for only: a directory is not kept.
func (r *scanRun) indexDirectory(ctx context.Context, fsys fs.FS, sources bool) (gatehouse.LayerInventory, error) {
	what := r.analysis()
	if sources {
		what.Extractors = index.SourceExtractors()
	}
	if !slices.Contains(r.opts.wants, gatehouse.KindSecret) {
		what = what.Without("secret")
	}
	return index.Rootfs(ctx, fsys, index.DefaultLimits(), what)
}

func (r *scanRun) compose(layers []gatehouse.LayerInventory, cfg gatehouse.ImageConfig, subject gatehouse.Digest) error {
	r.inventory = index.Compose(layers, cfg, subject)
	return nil
}

// sources takes back what only an image lacks: sources need no operating
// system, and their directory has no configuration.
func (r *scanRun) sources() {
	r.inventory.Findings = slices.DeleteFunc(r.inventory.Findings, func(f gatehouse.Finding) bool {
		return f.Kind == gatehouse.KindMisconfig
	})
	r.inventory.Incomplete = slices.DeleteFunc(r.inventory.Incomplete, func(why string) bool { return strings.HasPrefix(why, "os-release names") })
	r.inventory.Complete = len(r.inventory.Incomplete) == 0
}
