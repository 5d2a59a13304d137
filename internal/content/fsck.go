package content

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// ProblemKind says what kind of damage a [Problem] is. The names are stable.
type ProblemKind string

const (
	BlobMissing        ProblemKind = "blob-missing"        // a row without its bytes
	BlobSize           ProblemKind = "blob-size"           // too few bytes, or too many
	BlobCorrupt        ProblemKind = "blob-corrupt"        // other bytes, or bytes that cannot be read
	BlobWithheld       ProblemKind = "blob-withheld"       // found damaged before, still needed
	ObjectOrphan       ProblemKind = "object-orphan"       // stored, named by no row
	ManifestCorrupt    ProblemKind = "manifest-corrupt"    // other bytes than were pushed
	ManifestIncomplete ProblemKind = "manifest-incomplete" // its row refers to fewer parts than its text
	UploadShort        ProblemKind = "upload-short"        // a session with fewer bytes than its client was told
	RowContradiction   ProblemKind = "row-contradiction"
	LinkDangling       ProblemKind = "link-dangling" // a row that refers to one which does not exist
)

// Problem is one thing that is wrong, in words for who runs the registry.
type Problem struct {
	Kind    ProblemKind      `json:"kind"`
	Digest  gatehouse.Digest `json:"digest,omitempty"` // of the blob or the manifest
	Repo    gatehouse.Repo   `json:"repository,omitempty"`
	Key     string           `json:"storageKey,omitempty"`
	Message string           `json:"message"` // what is wrong
	// Images are those that cannot be pulled, or not whole, because of it, at
	// most ImagesMax; MoreImages says that there are more.
	Images     []string `json:"images,omitempty"`
	MoreImages bool     `json:"moreImages,omitempty"`
	// Repair is what Repair would do, has done (Repaired), or has done without
	// being able to undo the damage.
	Repair   string `json:"repair"`
	Repaired bool   `json:"repaired"`
}

// ImagesMax bounds the images that a problem names.
const ImagesMax = 20

// FsckOptions tune [Content.Fsck]. The zero value looks without touching
// anything, and does not re-hash what is stored.
type FsckOptions struct {
	// Deep re-hashes every stored object too. Manifests and blobs that lie in
	// their rows are always hashed.
	Deep bool
	// Rate bounds the reading of stored objects, in bytes per second; 0 does not.
	Rate int64
	// Repair puts right what can be put right and withholds what cannot.
	Repair bool
	// AcceptLoss lets Repair go on where most blobs are missing, or most objects
	// unknown. Without it that is taken for the wrong storage or the wrong
	// database, and nothing is withheld or deleted.
	AcceptLoss bool
	// MinAge is how old an object must be before it can be an orphan; 24 h by
	// default, none if negative.
	MinAge time.Duration
	// Actor is whom repairs are written down for; the system by default.
	Actor gatehouse.Actor
	// Progress is called now and then, by the calling goroutine.
	Progress func(FsckSummary)
}

// FsckSummary is what a check has seen.
type FsckSummary struct {
	Blobs     int64 `json:"blobs"`
	Bytes     int64 `json:"bytes"`     // that the rows of blobs speak of
	BytesRead int64 `json:"bytesRead"` // re-hashed, of stored objects
	Manifests int64 `json:"manifests"`
	Uploads   int64 `json:"uploads"`
	Objects   int64 `json:"objects"` // in storage
	Problems  int64 `json:"problems"`
	Repaired  int64 `json:"repaired"`
	// Seconds that it took.
	Seconds float64 `json:"seconds"`
}

// Pages of a check: manifests have up to 4 MiB, inline blobs up to 64 KiB.
const (
	keysPage      = 2000
	inlinePage    = 64
	manifestsPage = 8
	orphansMax    = 10_000 // held back until enough of the store has been seen
	checkedBatch  = 100
	suspectMin    = 10 // so many may be missing before that looks like the wrong storage
)

// Fsck compares rows and bytes and reports what is wrong, one problem at a time;
// an error of report ends it. On a registry at rest there is nothing to report,
// whatever crashed before, and changes under way are not reported either: what
// looks wrong is looked at a second time. Memory does not grow with the store.
//
// An error says that the check could not be finished. Problems reported until
// then stand. Several checks may run at once, also beside servers.
func (c *Content) Fsck(ctx context.Context, opts FsckOptions, report func(Problem) error) (FsckSummary, error) {
	if opts.MinAge == 0 {
		opts.MinAge = 24 * time.Hour
	}
	if opts.Actor.Anonymous() {
		opts.Actor = gatehouse.System("fsck")
	}
	k := &fsck{Content: c, opts: opts, report: report, pace: &pacer{rate: opts.Rate}, start: time.Now()}
	for _, step := range []func(context.Context) error{k.keys, k.inline, k.manifests, k.rows} {
		if err := step(ctx); err != nil {
			return k.summary(), err
		}
	}
	return k.summary(), nil
}

// Check is [Content.Fsck] in sentences, for tests: nothing is too young to be
// wrong, and every manifest must have been announced.
func (c *Content) Check(ctx context.Context, deep bool) (wrong []string, err error) {
	_, err = c.Fsck(ctx, FsckOptions{Deep: deep, MinAge: -1}, func(p Problem) error {
		wrong = append(wrong, p.Message)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var silent []string
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		silent, err = tx.Unannounced(ctx)
		return err
	})
	return append(wrong, silent...), err
}

// fsck is one check.
type fsck struct {
	*Content
	opts    FsckOptions
	report  func(Problem) error
	pace    *pacer
	start   time.Time
	sum     FsckSummary
	checked []int64 // blobs found right, to be noted
	missing int64   // blobs that storage holds nothing for
	known   int64   // objects that a row names
	strays  int64   // and those that none does
	orphans []orphan
}

func (k *fsck) summary() FsckSummary {
	k.sum.BytesRead = k.pace.moved()
	k.sum.Seconds = time.Since(k.start).Seconds()
	return k.sum
}

func (k *fsck) progress() {
	if k.opts.Progress != nil {
		k.opts.Progress(k.summary())
	}
}

func (k *fsck) say(p Problem) error {
	k.sum.Problems++
	if p.Repaired {
		k.sum.Repaired++
	}
	return k.report(p)
}

// affects names the images that a problem concerns.
func (k *fsck) affects(ctx context.Context, p *Problem, list func(tx *db.Tx, n int) ([]string, error)) error {
	return k.db.Get(ctx, func(tx *db.Tx) error {
		found, err := list(tx, ImagesMax+1)
		p.Images, p.MoreImages = found[:min(len(found), ImagesMax)], len(found) > ImagesMax
		return err
	})
}

// inline hashes the blobs that lie in their rows.
func (k *fsck) inline(ctx context.Context) error {
	var after int64
	for {
		var page []db.Blob
		err := k.db.Get(ctx, func(tx *db.Tx) (err error) {
			page, err = tx.InlineBlobs(ctx, after, inlinePage)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, b := range page {
			after = b.ID
			k.sum.Blobs++
			k.sum.Bytes += b.Size
			if !b.Withheld && inlineRight(b) {
				continue
			}
			if err := k.inlineDamaged(ctx, b.ID); err != nil {
				return err
			}
		}
		k.progress()
	}
}

func inlineRight(b db.Blob) bool {
	return b.Digest.Matches(b.Inline) && int64(len(b.Inline)) == b.Size
}

// inlineDamaged looks a second time.
func (k *fsck) inlineDamaged(ctx context.Context, id int64) error {
	var b db.Blob
	err := k.db.Get(ctx, func(tx *db.Tx) (err error) {
		b, _, err = tx.BlobByID(ctx, id)
		return err
	})
	right := inlineRight(b)
	if err != nil || b.ID == 0 || b.StorageKey != "" || right && !b.Withheld {
		return err
	}
	at := stored{id: b.ID, digest: b.Digest, size: b.Size}
	switch {
	case right:
		return k.isRight(ctx, at)
	case b.Withheld:
		return k.stillDamaged(ctx, at, damage{BlobCorrupt, inlineDamage})
	}
	return k.damaged(ctx, at, damage{BlobCorrupt, inlineDamage})
}

// rows compares the rows with each other. What is wrong twice in a row is wrong.
func (k *fsck) rows(ctx context.Context) error {
	first, err := k.contradictions(ctx)
	if err != nil || len(first) == 0 {
		return err
	}
	again, err := k.contradictions(ctx)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, f := range first {
		seen[f.Message] = true
	}
	mended := map[string]bool{} // by what mends it
	for _, f := range again {
		if !seen[f.Message] {
			continue
		}
		p := Problem{Kind: RowContradiction, Message: f.Message, Repair: f.Repair}
		if f.Dangling {
			p.Kind = LinkDangling
		}
		if f.Repair == "" {
			p.Repair = "nothing can be done here: restore the database from a backup, or push the image again"
		}
		if f.Repair != "" && k.opts.Repair {
			if !mended[f.Mends()] {
				if err := k.mendRows(ctx, f); err != nil {
					return err
				}
				mended[f.Mends()] = true
			}
			p.Repaired = true
		}
		if err := k.say(p); err != nil {
			return err
		}
	}
	return nil
}

func (k *fsck) contradictions(ctx context.Context) (out []db.Contradiction, err error) {
	err = k.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.Contradictions(ctx)
		return err
	})
	return out, err
}

func (k *fsck) mendRows(ctx context.Context, f db.Contradiction) error {
	return k.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Mend(ctx, f); err != nil {
			return err
		}
		return tx.AddAudit(ctx, k.opts.Actor, "rows.mend", "database", fmt.Sprintf("%s, and the like: %s", f.Message, f.Repair))
	})
}
