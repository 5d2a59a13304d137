package content

import (
	"context"
	"encoding/json"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// HoldReasonMax bounds the reason of a hold, in bytes.
const HoldReasonMax = 1000

// Hold keeps a manifest, with its children and blobs, until the hold is released:
// it can be neither collected nor deleted. Its referrers are not collected
// either. Tags may still move. CodeInvalid: no reason is given. CodeNotFound: the
// repository holds no such manifest.
func (c *Content) Hold(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, digest gatehouse.Digest, reason string) error {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return err
	}
	if reason == "" || len(reason) > HoldReasonMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "a hold needs a reason of 1 to %d bytes", HoldReasonMax).
			WithHint("say why, for whoever finds it later: a case, a ticket, a name")
	}
	detail, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		return err
	}
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.ManifestID(ctx, repo, digest); err != nil {
			return err
		}
		repoID, err := tx.EnsureRepo(ctx, repo)
		if err != nil {
			return err
		}
		if err := tx.AddHold(ctx, repoID, digest, reason, actor.Name); err != nil {
			return err
		}
		return tx.AddAudit(ctx, actor, "hold.add", resource(repo, digest), string(detail))
	})
	return c.nameUnknown(ctx, repo, err)
}

// Release ends a hold. CodeNotFound: there is none.
func (c *Content) Release(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, digest gatehouse.Digest) error {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return err
	}
	return c.db.Write(ctx, func(tx *db.Tx) error {
		released, err := tx.ReleaseHold(ctx, repo, digest)
		if err != nil {
			return err
		}
		if !released {
			return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no hold on %s", resource(repo, digest)).WithHint("gatehouse gc holds lists them")
		}
		id, err := tx.ManifestID(ctx, repo, digest)
		if err != nil {
			return err
		}
		if err := tx.ReviewManifest(ctx, id, "hold released", tx.Now()); err != nil {
			return err
		}
		return tx.AddAudit(ctx, actor, "hold.release", resource(repo, digest), "")
	})
}

// Holds lists holds, of one repository or, with repo empty, of all, in order of
// repository and digest, behind the given one, at most n.
func (c *Content) Holds(ctx context.Context, repo gatehouse.Repo, after db.Hold, n int) (out []db.Hold, err error) {
	if after.Digest != "" {
		if _, err := gatehouse.ParseDigest(string(after.Digest)); err != nil {
			return nil, err
		}
	}
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.Holds(ctx, repo, after, n)
		return err
	})
	return out, err
}
