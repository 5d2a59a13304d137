package content

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Explanation says why a manifest or a blob is kept, or that nothing keeps it.
type Explanation struct {
	Kind   string           `json:"kind"` // "manifest" or "blob"
	Repo   gatehouse.Repo   `json:"repo"`
	Digest gatehouse.Digest `json:"digest"`
	Kept   bool             `json:"kept"`
	// Until is when what keeps it ends by itself, if it does.
	Until *time.Time `json:"until,omitempty"`
	// Path leads from what keeps it to it: "tag v1", "index sha256:…", "this".
	Path []string `json:"path"`
	// Review is when it is looked at next, and the event that asked for it.
	Review *time.Time `json:"review,omitempty"`
	Event  string     `json:"event,omitempty"`
	// OtherRepos are more repositories that keep a blob, up to linksMax.
	OtherRepos []gatehouse.Repo `json:"otherRepos,omitempty"`
}

// Text is the path as one line: "tag v1 -> index sha256:… -> this".
func (e Explanation) Text() string { return strings.Join(e.Path, " -> ") }

// linksMax bounds the repositories that are listed with a blob.
const linksMax = 100

// Explain says why the manifest or blob with this digest is kept in repo.
// CodeNotFound: the repository holds neither.
func (c *Content) Explain(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (Explanation, error) {
	e, err := c.ExplainManifest(ctx, repo, digest)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound && detailOf(err) == "MANIFEST_UNKNOWN" {
		return c.ExplainBlob(ctx, repo, digest)
	}
	return e, err
}

// ExplainManifest is [Content.Explain] for a manifest.
func (c *Content) ExplainManifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (e Explanation, err error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return e, err
	}
	err = c.db.Read(ctx, func(tx *db.Tx) error {
		id, err := tx.ManifestAt(ctx, repo, digest)
		if err != nil {
			return err
		}
		e, err = c.explainManifest(ctx, tx, repo, id)
		return err
	})
	return e, c.nameUnknown(ctx, repo, err)
}

func (c *Content) explainManifest(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, id int64) (Explanation, error) {
	g, err := c.loadGraph(ctx, tx, tx.Now(), []int64{id})
	if err != nil {
		return Explanation{}, err
	}
	n := g.nodes[id]
	if n == nil { // in a transaction that saw its row
		return Explanation{}, fmt.Errorf("manifest row %d of %s cannot be read", id, repo)
	}
	e := Explanation{Kind: "manifest", Repo: repo, Digest: n.Digest, Kept: !n.until.IsZero(), Path: g.path(n)}
	switch {
	case !e.Kept && c.opts.GC.KeepUntagged:
		e.Kept, e.Path = true, []string{"untagged manifests are kept (gc-untagged is false)", "this"}
	case e.Kept && !permanent(n.until):
		until := n.until.UTC()
		e.Until = &until
	}
	return e, e.setReview(ctx, tx, db.ManifestTask, id)
}

func (e *Explanation) setReview(ctx context.Context, tx *db.Tx, kind db.TaskKind, key int64) error {
	task, ok, err := tx.Task(ctx, kind, key)
	if err == nil && ok {
		e.Review, e.Event = &task.ReviewAfter, task.Event
	}
	return err
}

// path is the shortest way from a root that keeps n as long as anything does.
func (g *graph) path(n *node) []string {
	if n.until.IsZero() {
		return nil
	}
	type hop struct {
		to  *node // kept by the one behind it
		why db.KeeperKind
	}
	came := map[int64]hop{n.ID: {}}
	for queue := []*node{n}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at.root.Equal(n.until) {
			out := []string{at.why}
			for at != n {
				h := came[at.ID]
				out = append(out, map[db.KeeperKind]string{
					db.KeptByIndex: "index ", db.KeptByReferrer: "referrer ", db.KeptBySubject: "subject ", db.KeptByName: "named by a tag: ", db.KeptByPast: "named by a tag that moved on: ",
				}[h.why]+string(at.Digest))
				at = h.to
			}
			return append(out, "this")
		}
		for _, k := range at.keepers {
			if next := g.nodes[k.By]; next != nil && !next.until.IsZero() {
				if _, seen := came[next.ID]; !seen {
					came[next.ID], queue = hop{at, k.Why}, append(queue, next)
				}
			}
		}
	}
	return nil
}

// ExplainBlob is [Content.Explain] for a blob.
func (c *Content) ExplainBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (e Explanation, err error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return e, err
	}
	err = c.db.Read(ctx, func(tx *db.Tx) error {
		links, _, err := tx.BlobLinks(ctx, repo, digest, linksMax+1)
		if err != nil {
			return err
		}
		if len(links) == 0 || links[0].Repo != repo {
			return gatehouse.Errorf(gatehouse.CodeNotFound, "repository %s holds neither a manifest nor a blob %s", repo, digest).WithDetail("BLOB_UNKNOWN")
		}
		e, err = c.explainLink(ctx, tx, links[0], digest)
		if err != nil {
			return err
		}
		for _, l := range links[1:] {
			e.OtherRepos = append(e.OtherRepos, l.Repo)
		}
		return e.setReview(ctx, tx, db.BlobTask, links[0].BlobID)
	})
	return e, c.nameUnknown(ctx, repo, err)
}

func (c *Content) explainLink(ctx context.Context, tx *db.Tx, l db.BlobLink, digest gatehouse.Digest) (Explanation, error) {
	e := Explanation{Kind: "blob", Repo: l.Repo, Digest: digest}
	if !l.Until.IsZero() {
		e.Kept, e.Until, e.Path = l.Until.After(tx.Now()), &l.Until, []string{"it was pushed or mounted, or lost its manifest, a short time ago", "this"}
		return e, nil
	}
	by, needed, err := tx.BlobNeeded(ctx, l.RepoID, l.BlobID)
	if err != nil || !needed {
		return e, err
	}
	id, err := tx.ManifestAt(ctx, l.Repo, by)
	if err != nil {
		return e, err
	}
	m, err := c.explainManifest(ctx, tx, l.Repo, id)
	if err != nil {
		return e, err
	}
	// As long as the manifest is there, so is the blob.
	e.Kept, e.Until, e.Path = true, m.Until, slices.Clone(m.Path)
	if len(e.Path) == 0 {
		e.Path = []string{"nothing keeps its manifest, which has not been collected yet", "this"}
	}
	e.Path[len(e.Path)-1] = "manifest " + string(by)
	e.Path = append(e.Path, "this")
	return e, nil
}
