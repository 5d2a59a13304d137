package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// gcOptions are the settings of garbage collection, where zero means none.
func gcOptions(cfg config.Config, log *slog.Logger) content.GCOptions {
	none := func(d time.Duration) time.Duration {
		if d <= 0 {
			return content.NoTime
		}
		return d
	}
	return content.GCOptions{
		Grace: none(cfg.GCGrace), TagRestore: none(cfg.TagRestore), Tombstone: none(cfg.GCTombstone), KeepUntagged: !cfg.GCUntagged,
		OnPass: func(ctx context.Context, done content.Collected, err error) {
			if err != nil {
				log.WarnContext(ctx, "collect garbage failed", "error", err)
			}
			if done.Manifests+done.Blobs+done.Objects+done.Failed > 0 {
				log.InfoContext(ctx, "collect garbage done", "manifests", done.Manifests, "tags", done.Tags, "blobs", done.Blobs,
					"objects", done.Objects, "bytes", done.Bytes, "reviewed", done.Reviewed, "failed", done.Failed)
			}
		},
	}
}

// garbage is what the API asks of garbage collection.
type garbage struct{ content *content.Content }

func (g garbage) Status(ctx context.Context) (any, error) { return g.content.GCStatus(ctx) }

func (g garbage) Collect(ctx context.Context, actor gatehouse.Actor, dryRun, everything bool) (any, error) {
	return g.content.Collect(ctx, content.CollectOptions{DryRun: dryRun, IgnoreWindows: everything, Actor: actor})
}

func (g garbage) Explain(ctx context.Context, image gatehouse.Ref) (any, error) {
	digest, err := g.digest(ctx, image)
	if err != nil {
		return nil, err
	}
	return g.content.Explain(ctx, image.Repo, digest)
}

// digest is what a reference means now.
func (g garbage) digest(ctx context.Context, image gatehouse.Ref) (gatehouse.Digest, error) {
	if image.Digest != "" {
		return image.Digest, nil
	}
	tag, err := g.content.Tag(ctx, image.Repo, image.Tag)
	return tag.Digest, err
}

// holdDoc is a hold as the API shows it.
type holdDoc struct {
	Repository gatehouse.Repo   `json:"repository"`
	Digest     gatehouse.Digest `json:"digest"`
	Reason     string           `json:"reason"`
	Actor      string           `json:"actor"`
	CreatedAt  time.Time        `json:"createdAt"`
}

func (g garbage) Holds(ctx context.Context, repo gatehouse.Repo, after gatehouse.Ref, n int) (any, error) {
	list, err := g.content.Holds(ctx, repo, db.Hold{Repo: after.Repo, Digest: after.Digest}, n)
	if err != nil {
		return nil, err
	}
	out := struct {
		Holds []holdDoc `json:"holds"`
		Next  string    `json:"next,omitempty"`
	}{Holds: []holdDoc{}}
	for _, h := range list {
		out.Holds = append(out.Holds, holdDoc{h.Repo, h.Digest, h.Reason, h.Actor, h.CreatedAt})
	}
	if len(list) == n {
		out.Next = string(list[n-1].Repo) + "@" + string(list[n-1].Digest)
	}
	return out, nil
}

func (g garbage) Hold(ctx context.Context, actor gatehouse.Actor, image gatehouse.Ref, reason string) (any, error) {
	digest, err := g.digest(ctx, image)
	if err != nil {
		return nil, err
	}
	if err := g.content.Hold(ctx, actor, image.Repo, digest, reason); err != nil {
		return nil, err
	}
	return holdDoc{image.Repo, digest, reason, actor.Name, time.Now().UTC()}, nil
}

func (g garbage) Release(ctx context.Context, actor gatehouse.Actor, image gatehouse.Ref) error {
	digest, err := g.digest(ctx, image)
	if err != nil {
		return err
	}
	return g.content.Release(ctx, actor, image.Repo, digest)
}

// tags is what the API asks about tags.
type tags struct{ content *content.Content }

// tagDoc is a tag as the API shows it.
type tagDoc struct {
	Name      string           `json:"name"`
	Digest    gatehouse.Digest `json:"digest"`
	MediaType string           `json:"mediaType"`
	Size      int64            `json:"size"`
	UpdatedBy string           `json:"updatedBy"`
	UpdatedAt time.Time        `json:"updatedAt"`
}

func (t tags) List(ctx context.Context, repo gatehouse.Repo, after string, n int) (any, error) {
	from := after
	if from != "" {
		from += "-" // the lowest character of a tag
	}
	list, err := t.content.TagsFrom(ctx, repo, from, n)
	if err != nil {
		return nil, err
	}
	out := struct {
		Tags []tagDoc `json:"tags"`
		Next string   `json:"next,omitempty"`
	}{Tags: []tagDoc{}}
	for _, tag := range list {
		out.Tags = append(out.Tags, tagDoc(tag))
	}
	if len(list) == n {
		out.Next = list[n-1].Name
	}
	return out, nil
}

func (t tags) Tag(ctx context.Context, repo gatehouse.Repo, name string) (any, error) {
	tag, err := t.content.Tag(ctx, repo, name)
	return tagDoc(tag), err
}

// changeDoc is one change of a tag as the API shows it.
type changeDoc struct {
	ID    int64            `json:"id"`
	From  gatehouse.Digest `json:"from,omitempty"` // empty: the tag was created
	To    gatehouse.Digest `json:"to,omitempty"`   // empty: it was deleted
	Actor string           `json:"actor"`
	At    time.Time        `json:"at"`
}

func (t tags) History(ctx context.Context, repo gatehouse.Repo, name string, before int64, n int) (any, error) {
	list, err := t.content.TagChanges(ctx, repo, name, before, n)
	if err != nil {
		return nil, err
	}
	out := struct {
		Changes []changeDoc `json:"changes"`
		Next    int64       `json:"next,omitempty"`
	}{Changes: []changeDoc{}}
	for _, c := range list {
		out.Changes = append(out.Changes, changeDoc{c.ID, c.Old, c.New, c.Actor, c.At})
	}
	if len(list) == n {
		out.Next = list[n-1].ID
	}
	return out, nil
}

func (t tags) Restore(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, name string, digest gatehouse.Digest) (any, error) {
	c, err := t.content.RestoreTag(ctx, actor, repo, name, digest)
	return changeDoc{c.ID, c.Old, c.New, c.Actor, c.At}, err
}

func (t tags) Delete(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, name string) error {
	return t.content.DeleteTag(ctx, actor, repo, name)
}
