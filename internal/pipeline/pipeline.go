// Package pipeline is the arrows between the boxes: what happens when an image
// is pushed (index, match, look for malware, attach bills of materials), when
// something is attached to it (verify signatures), when the advisories change (match again what the change touches), and in the
// background, when a new indexer, a new list or a new signature database has to
// see again what is stored. Each arrow is a job that survives a restart and that
// any replica may do.
//
// What it never does: judge an image, answer a request.
package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/job"
)

// Kinds of jobs.
const (
	JobIndex   = "index"   // one image manifest
	JobMatch   = "match"   // the newest advisory generation
	JobMalware = "malware" // the files of one layer
	JobBill    = "sbom"    // the bills of materials of one image
	JobAttest  = "attest"  // what was found in one image

	JobSignature = "signature" // what hangs on one manifest
	JobSigners   = "signers"   // all of that, by other policies
)

// Media types of manifests and configurations that are images to run.
const (
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	ociConfig      = "application/vnd.oci.image.config.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// Pipeline moves images along. It is safe for concurrent use.
type Pipeline struct {
	db         *db.DB
	content    gatehouse.ContentReader
	advisories *Advisories
	analysis   index.Analysis
	indexer    string
	limits     index.Limits
	licences   func(gatehouse.Inventory) []gatehouse.Finding
	scanner    MalwareScanner
	registry   gatehouse.Content
	bills      []Bill
	attestor   Attestor
	// attestAfter is how far the images have been looked through for verdicts that
	// are not attested. Only RunBackground's goroutine touches it.
	attestAfter int64
	attestAgain atomic.Bool // verdicts have changed since the last look
	onIndexed   func(context.Context, *db.Tx, gatehouse.Digest) error
	signing     SignatureOptions
	pace        Pace
	wake        chan struct{} // there is work for the background
	log         *slog.Logger

	nobodyOnce sync.Once
	nobodyKey  string
	nobodyErr  error
}

// Options of a [Pipeline]. DB, Content, Advisories, Analysis and Log are required.
type Options struct {
	DB         *db.DB
	Content    gatehouse.ContentReader
	Advisories *Advisories
	Analysis   index.Analysis // what layers are looked at for
	Limits     index.Limits   // zero: index.DefaultLimits
	// Licences judges the licences of an image's packages. It is a pure function;
	// what it says is computed when it is asked for. Nil: nothing is wrong with any.
	Licences func(gatehouse.Inventory) []gatehouse.Finding
	// Scanner is asked about the files of every layer. Nil: none is.
	Scanner MalwareScanner
	// Bills of materials are written for every image and attached to it, in
	// Registry. None: nothing is attached.
	Bills    []Bill
	Registry gatehouse.Content
	// Attestor attests what is found in images, each time that it changes; the
	// attestations are attached in Registry. Nil: nothing is attested.
	Attestor Attestor
	// Indexed is told of every image that has been indexed, in the transaction that
	// stores it. Nil: nobody is.
	Indexed func(ctx context.Context, tx *db.Tx, image gatehouse.Digest) error
	// Signatures says how what hangs on images is checked when it arrives. Zero: it
	// is not. It needs Registry.
	Signatures SignatureOptions
	Pace       Pace // of what is done in the background; zero: the defaults
	Log        *slog.Logger
}

// New makes a pipeline; [Pipeline.Handlers] do its work.
func New(o Options) *Pipeline {
	if o.Limits == (index.Limits{}) {
		o.Limits = index.DefaultLimits()
	}
	return &Pipeline{
		db: o.DB, content: o.Content, advisories: o.Advisories, analysis: o.Analysis,
		indexer: o.Analysis.Version(), limits: o.Limits, log: o.Log,
		licences: o.Licences, scanner: o.Scanner, bills: o.Bills, attestor: o.Attestor, registry: o.Registry, onIndexed: o.Indexed, signing: o.Signatures, pace: o.Pace.orDefault(),
		wake: make(chan struct{}, 1),
	}
}

// Handlers says who does which kind of job.
func (p *Pipeline) Handlers() map[string]job.Handler {
	return map[string]job.Handler{JobIndex: p.onPush, JobMatch: p.onFeed, JobBill: p.onBill, JobAttest: p.onAttest, JobSignature: p.onSignature, JobSigners: p.onSigners}
}

// SlowHandlers says who does the jobs that take minutes each and that nobody waits
// for: they need workers of their own.
func (p *Pipeline) SlowHandlers() map[string]job.Handler {
	return map[string]job.Handler{JobMalware: p.onMalware}
}

type indexJob struct {
	Repo   gatehouse.Repo   `json:"repo"`
	Digest gatehouse.Digest `json:"digest"`
}

// Pushed adds the work for a manifest in the transaction that stores it: none for
// what is no image.
func Pushed(ctx context.Context, tx *db.Tx, m *gatehouse.Manifest) error {
	if !IsImage(m) {
		return nil
	}
	payload, err := json.Marshal(indexJob{m.Repo, m.Digest})
	if err != nil {
		return err
	}
	_, err = tx.AddJob(ctx, JobIndex, string(m.Digest), payload, tx.Now())
	return err
}

func mayBeImage(mediaType string) bool {
	return mediaType == ociManifest || mediaType == dockerManifest
}

// imageManifest is the part of an image manifest that the pipeline reads.
type imageManifest struct {
	Config gatehouse.Descriptor   `json:"config"`
	Layers []gatehouse.Descriptor `json:"layers"`
}

// IsIndex reports whether manifests of this media type list other manifests.
func IsIndex(mediaType string) bool { return mediaType == ociIndex || mediaType == dockerList }

// IsImage reports whether a manifest is an image that the pipeline indexes.
func IsImage(m *gatehouse.Manifest) bool {
	var parsed imageManifest
	return mayBeImage(m.MediaType) && json.Unmarshal(m.Body, &parsed) == nil && parsed.image()
}

// image reports whether the manifest is something to run: signatures, charts
// and other artifacts have no file system.
func (m imageManifest) image() bool {
	if m.Config.MediaType != ociConfig && m.Config.MediaType != dockerConfig {
		return false
	}
	for _, l := range m.Layers {
		if !isLayer(l.MediaType) {
			return false
		}
	}
	return true
}

func isLayer(mediaType string) bool {
	switch mediaType {
	case "application/vnd.oci.image.layer.v1.tar",
		"application/vnd.oci.image.layer.v1.tar+gzip",
		"application/vnd.oci.image.layer.v1.tar+zstd",
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.diff.tar.zstd",
		"application/vnd.docker.image.rootfs.foreign.diff.tar",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
		return true
	}
	return false
}

// forGood reports whether trying again cannot help.
func forGood(err error) bool {
	switch gatehouse.CodeOf(err) {
	case gatehouse.CodeInvalid, gatehouse.CodeTooLarge:
		return true
	}
	return false
}

var errMoved = errors.New("the advisory generation changed meanwhile")

func wrap(err *error, format string, args ...any) {
	if *err != nil {
		*err = fmt.Errorf(format+": %w", append(args, *err)...)
	}
}
