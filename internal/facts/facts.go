// Package facts is what one server tells another cluster of its images, and what is
// done there with it. What a server says is signed: what it knows of the contents of
// an image, and which bytes hang on it. The bytes travel along (manifests,
// configurations, signatures, attestations) and are judged where they arrive: a
// signature of an image counts there only once it has been verified there.
//
// A [Follower] asks the server every few seconds what has changed, keeps what it was
// told on its own disk as it was signed, and goes on answering from that while the
// server is away, until it is too old. It never keeps what a tag names. It opens no
// connection of its own, and judges no image.
package facts

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Payload types of what is signed. A later form gets another name.
const (
	TypePage  = "application/vnd.gatehouse.facts.changes.v1+json"
	TypeImage = "application/vnd.gatehouse.facts.v1+json"
)

// Lifetime is how long what a server signs counts at most, wherever it is kept: the
// setting of whoever keeps it can only be shorter.
const Lifetime = 7 * 24 * time.Hour

// Limits of what is signed and read.
const (
	ChangesMax   = 1000      // of one page
	BlobMax      = 8 << 20   // bytes of one blob that travels
	BlobsMax     = 32 << 20  // bytes of all blobs of one image
	AttachedMax  = 2000      // manifests that hang on one image
	ManifestsMax = 32 << 20  // bytes of all manifests of one image, its own apart
	pageSizeMax  = 4 << 20   // bytes of one signed page
	imageSizeMax = 128 << 20 // bytes of the signed facts of one image
	namesMax     = 100       // names of a server
)

// Page is a part of the feed: what has changed after a position of it.
type Page struct {
	Server string `json:"server"` // names the installation
	Nonce  string `json:"nonce"`  // of the question that this answers
	// After is the position that was asked about, Last the one to ask about next, and
	// Mark tells whether the server's history is still the one that Last belongs to.
	// Positions grow, but not by one; that nothing lies between After and Last but what
	// is told here is what the server signs.
	After int64  `json:"after"`
	Last  int64  `json:"last"`
	Mark  string `json:"mark"`
	More  bool   `json:"more"` // there is more after Last already
	// At is when it was true, by the server's clock: after everything that it tells had
	// happened.
	At        time.Time `json:"at"`
	ExpiresAt time.Time `json:"expiresAt"`
	// Generation is that of the advisories in force.
	Generation int64    `json:"generation"`
	Names      []string `json:"names"` // registry names that mean the server
	// All: what is known of any image may be another now.
	All     bool     `json:"all"`
	Changes []Change `json:"changes"`
}

// Change says that facts about the images of a repository may be others now, and about
// the digest wherever it is.
type Change struct {
	Repository gatehouse.Repo   `json:"repository"`
	Digest     gatehouse.Digest `json:"digest,omitempty"`
}

// Document is what a server says of one image in one repository.
type Document struct {
	Server     string           `json:"server"`
	Nonce      string           `json:"nonce"`
	Repository gatehouse.Repo   `json:"repository"`
	Digest     gatehouse.Digest `json:"digest"`
	// At is when it was true, by the server's clock: before anything of it was read.
	At         time.Time `json:"at"`
	ExpiresAt  time.Time `json:"expiresAt"`
	Generation int64     `json:"generation"`
	// Version names what the image's facts are, and nothing else; Unchanged says that
	// they are those of the version that was asked about, which do not travel again.
	Version   gatehouse.Digest `json:"version"`
	Unchanged bool             `json:"unchanged,omitempty"`
	Image     *Image           `json:"image,omitempty"`
}

// Image are facts about one image or index.
type Image struct {
	// Manifests are the image's, those that an index lists, and those that hang on it,
	// whole.
	Manifests []Manifest `json:"manifests"`
	// Blobs are configurations, signatures and attestations. What is larger than
	// anything that is verified is left out.
	Blobs map[gatehouse.Digest][]byte `json:"blobs,omitempty"`
	// Tags are where tags of signatures point, Past where they pointed before, newest
	// first; Referrers lists what names the image as its subject, Valid what was found
	// to hold when it arrived.
	Tags      map[string]gatehouse.Digest   `json:"tags,omitempty"`
	Past      map[string][]gatehouse.Digest `json:"past,omitempty"`
	Referrers []gatehouse.Descriptor        `json:"referrers,omitempty"`
	Valid     []gatehouse.Digest            `json:"valid,omitempty"`
	Scan      Scan                          `json:"scan"`
	// Builds are what the image is built of; NoBuilds says why that is not known.
	Builds   []gatehouse.ImageBuild `json:"builds,omitempty"`
	NoBuilds string                 `json:"noBuilds,omitempty"`
}

// Manifest is one manifest with its bytes.
type Manifest struct {
	MediaType    string           `json:"mediaType"`
	Digest       gatehouse.Digest `json:"digest"`
	ArtifactType string           `json:"artifactType,omitempty"`
	Subject      gatehouse.Digest `json:"subject,omitempty"`
	Body         []byte           `json:"body"`
}

// Scan is what the server knows of the contents; fields as in gatehouse.ImageFacts.
type Scan struct {
	Inventory *gatehouse.Inventory `json:"inventory,omitempty"`
	Findings  []gatehouse.Finding  `json:"findings,omitempty"`
	Complete  bool                 `json:"complete"`
	// Pending: the image, or one that it lists, will have been looked into in a moment.
	Pending    bool                        `json:"pending,omitempty"`
	Incomplete []string                    `json:"incomplete,omitempty"`
	FeedAt     time.Time                   `json:"feedAt,omitzero"`
	Partial    map[gatehouse.Kind][]string `json:"partial,omitempty"`
	Overlays   []string                    `json:"overlays,omitempty"`
}

// VersionOf names what the facts of an image are.
func VersionOf(img *Image) (gatehouse.Digest, error) {
	b, err := json.Marshal(img)
	if err != nil {
		return "", err
	}
	return gatehouse.DigestOf(b), nil
}

// At are the findings as they are at a moment: what was accepted for a time counts
// again when that is over. The facts stay as they are.
func (s Scan) At(now time.Time) []gatehouse.Finding {
	over := func(p *gatehouse.Suppression) bool { return p != nil && !p.Expires.IsZero() && !now.Before(p.Expires) }
	if !slices.ContainsFunc(s.Findings, func(f gatehouse.Finding) bool { return over(f.Suppressed) }) {
		return s.Findings
	}
	out := slices.Clone(s.Findings)
	for i := range out {
		if over(out[i].Suppressed) {
			out[i].Suppressed = nil
		}
	}
	return out
}
