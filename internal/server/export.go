package server

import (
	"context"
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

// Export implements api.Feeds: the generation in force as an OCI artifact.
func (f *feeds) Export(ctx context.Context) (api.Export, error) {
	select {
	case f.exporting <- struct{}{}:
	default:
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "the advisories are being exported already").WithHint("try again in a minute")
	}
	done := func() { <-f.exporting }
	gen, file, release, err := f.advisories.Acquire(ctx)
	if err != nil {
		done()
		return nil, err
	}
	defer release()
	if file == nil {
		done()
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "this server has no advisories yet")
	}
	dir := filepath.Join(f.cfg.Data, "advisories")
	packed, err := update.Pack(ctx, f.advisories.Path(gen), dir, AboutMeta(file.Meta()))
	if err != nil {
		done()
		return nil, err
	}
	return &exported{packed, done}, nil
}

// exported lets the next one begin when it is discarded.
type exported struct {
	*update.Artifact
	done func()
}

func (e *exported) Discard() {
	e.Artifact.Discard()
	e.done()
}

// AboutMeta says of an advisory file what its artifact says of it.
func AboutMeta(meta advisory.Meta) update.About {
	about := update.About{BuiltAt: meta.BuiltAt, UpdatedAt: meta.UpdatedAt, Records: meta.Records, Feeds: []update.AboutFeed{}}
	for _, f := range meta.Feeds {
		about.Feeds = append(about.Feeds, update.AboutFeed{Name: f.Name, Source: f.Source, Records: f.Records, UpdatedAt: f.UpdatedAt})
	}
	return about
}
