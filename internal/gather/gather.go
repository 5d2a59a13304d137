// Package gather collects the facts that the policies of a set need about the
// images of one request: digests, signatures, findings, configurations. It
// asks through small interfaces and decides nothing; what it could not find
// out stands in ImageFacts.Failed, and the decision denies for it.
//
// Before a registry that is not ours is contacted, the policies that need no
// facts are asked: an image that they refuse is never looked up.
package gather

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Policies is what gathering must know of a policy set.
type Policies interface {
	// Images lists the images of the request's object, without facts.
	Images(gatehouse.Request) []gatehouse.ImageFacts
	// Needs lists the facts that the policies ask for.
	Needs(gatehouse.Request) []gatehouse.Need
	// Refused reports whether the request is denied whatever the facts are.
	Refused(context.Context, gatehouse.Request) bool
}

// Resolver finds the digest that a reference points at now.
type Resolver interface {
	Resolve(ctx context.Context, ref gatehouse.Ref) (gatehouse.Digest, error)
}

// Tags tells whether a tag of our own registry points at a digest, never pointed at
// another one and cannot come to. ref has both.
type Tags interface {
	TagFixed(ctx context.Context, ref gatehouse.Ref) (bool, error)
}

// Verifier finds what an authority has signed of an image. ref has its digest.
// The error is for what could not be asked; an image without a signature is no
// error.
type Verifier interface {
	Verify(ctx context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error)
}

// Scanner tells what is known of the contents of an image. ref has its digest.
// An image that has not been scanned is no error: its Scan has no Inventory.
type Scanner interface {
	Scan(ctx context.Context, ref gatehouse.Ref) (Scan, error)
}

// Scan is what a Scanner knows. Its zero value proves nothing.
type Scan struct {
	Inventory  *gatehouse.Inventory
	Findings   []gatehouse.Finding
	Complete   bool // the inventory is whole and the advisories cover it
	Incomplete []string
	FeedAt     time.Time // of the advisories that were compared with
	// Partial and Overlays: as in gatehouse.ImageFacts.
	Partial  map[gatehouse.Kind][]string
	Overlays []string
}

// Versions names the state of all that is attached to an image of our own registry, by
// a text that changes with it; it is empty where that cannot be told.
type Versions interface {
	Version(ctx context.Context, ref gatehouse.Ref) (string, error)
	// Epoch names the state of all images: as long as it stays the same, so do the
	// versions that were asked for after it. ok is false where that cannot be told.
	Epoch() (epoch int64, ok bool)
}

// Waiter waits for images that are being scanned: until they have been, or there is no
// time left. It reports whether it has waited, so that a Scanner may say more now. ref
// has its digest.
type Waiter interface {
	Await(ctx context.Context, ref gatehouse.Ref) bool
}

// Bills finds what is wrong with the packages that an SBOM of an image names. ref
// has its digest; document is verified. An SBOM that cannot be read, or judged
// only in part, is no error: AddedFindings says what of it could not be judged.
type Bills interface {
	Bill(ctx context.Context, ref gatehouse.Ref, document []byte) (gatehouse.AddedFindings, error)
}

// Configs reads image configurations. ref has its digest.
type Configs interface {
	Config(ctx context.Context, ref gatehouse.Ref) ([]byte, error)
}

// Platforms reads the configurations of all images that a reference stands for, by
// OS/ARCHITECTURE[/VARIANT]: of one, or of all that an index lists. ref has its
// digest.
type Platforms interface {
	Platforms(ctx context.Context, ref gatehouse.Ref) (map[string][]byte, error)
}

// Builds tells what images are built of. ref has its digest.
type Builds interface {
	Builds(ctx context.Context, ref gatehouse.Ref) ([]gatehouse.ImageBuild, error)
}

// Sources is where facts come from. A source that is nil answers nothing, and
// a need for it fails.
type Sources struct {
	Resolver Resolver
	// Tags is asked about tags that nothing writes a digest beside any more. Nil, or an
	// error: every tag may move.
	Tags     Tags
	Verifier Verifier
	Scanner  Scanner
	Configs  Configs
	Bills    Bills
	Builds   Builds
	// Waiter is asked where a policy waits for scans. Nil: nothing is waited for.
	Waiter Waiter
	// Platforms answers what is asked of an index as a whole.
	Platforms Platforms
	// Versions spares Memory questions about our own images. Nil: each is asked.
	Versions Versions
	// AsOf tells when the sources found out what they say of an image of our own
	// registry, where that is not now; zero: it is. Sources with an AsOf keep by
	// themselves what they said of those, and Memory is not asked. ref has its digest.
	AsOf func(ctx context.Context, ref gatehouse.Ref) time.Time
	// Memory remembers what the sources said. Nil: each request asks anew.
	Memory *Memory
	// Own reports whether a registry (host[:port]) is this server's. Nil: none is.
	Own func(registry string) bool
	// Parallel bounds the questions that are asked at once; 0 = parallelDefault.
	Parallel int
	// Timeout bounds the gathering; 0 = timeoutDefault. ctx may end earlier.
	Timeout time.Duration
}

const (
	parallelDefault = 8
	timeoutDefault  = 5 * time.Second
	needsMax        = 10_000 // of one request
)

// Facts returns req with Images filled with what the policies need. Every need
// is answered or failed: nothing is left out silently. Questions about equal
// references are asked once. It returns when all are answered or the time is
// over, whatever the sources do.
func Facts(ctx context.Context, set Policies, req gatehouse.Request, src Sources) gatehouse.Request {
	timeout := src.Timeout
	if timeout <= 0 {
		timeout = timeoutDefault
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req.Images = set.Images(req)
	g := newGathering(set.Needs(req), req, src)
	if g.asksForeign() && set.Refused(ctx, req) {
		g.leaveForeign()
	}
	g.run(ctx)
	return g.fill(req)
}
