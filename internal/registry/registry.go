// Package registry is the edge of push and pull: it speaks the OCI
// distribution-spec 1.1 over HTTP and serves any [gatehouse.Content]. A request
// is parsed once into a typed value, a table names its handler, and one place
// writes errors.
//
// It never decides what is stored, who somebody is or what a manifest means: it
// asks the Content and the [Authorizer] that it was given.
package registry

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Options are the parts of a registry.
type Options struct {
	Content gatehouse.Content
	// Auth says who asks and what they may. nil: nobody may do anything.
	Auth Authorizer
	// Gate is asked before a manifest is served whose project asks something of
	// pulls. nil: such manifests are not served.
	Gate Gate
	// Log takes what operators need to know, errors of our own above all; nil
	// drops it.
	Log *slog.Logger
	// Stall is how long a client may take to move the next piece of a body
	// (64 KiB in, 1 MiB out) before the request ends. Zero means 30 seconds.
	Stall time.Duration
	// PageSize is the longest list of tags or repositories in one answer, and
	// its length where the client does not ask for less. Zero means 10,000,
	// which is also the most; a list of that many tags has 1.3 MB at most.
	PageSize int
	// ClientRequestsMax is how many requests from one address (IPv4, or /64 of
	// IPv6) are served at a time; more are answered with 429. Zero means 8,192:
	// enough for a proxy that stands for a whole cluster.
	ClientRequestsMax int
	// HeldMax bounds the bytes of manifests and lists above 64 KiB that are in
	// memory at a time while clients send or take them; more are answered with
	// 429. Zero means 512 MiB.
	HeldMax int64
	// Observe is told of every request when it has been answered. kind is the
	// endpoint ("manifest-get", …; "invalid" for what is none), bytesIn and
	// bytesOut count bodies. It is called concurrently and must not block.
	Observe func(kind string, status int, seconds float64, bytesIn, bytesOut int64)
}

// stallDefault makes a pushing client move 2 KiB/s and a pulling one 34 KiB/s.
const stallDefault = 30 * time.Second

type server struct {
	content gatehouse.Content
	auth    Authorizer
	gate    Gate
	log     *slog.Logger
	stall   time.Duration
	page    int
	crowd   crowd
	held    held
	observe func(kind string, status int, seconds float64, bytesIn, bytesOut int64)
}

// New returns the handler of everything under /v2/. It is safe for concurrent
// use.
func New(opts Options) http.Handler {
	s := &server{content: opts.Content, auth: opts.Auth, gate: opts.Gate, log: opts.Log, stall: opts.Stall, page: opts.PageSize,
		crowd: crowd{max: opts.ClientRequestsMax}, observe: opts.Observe}
	if s.held.max = opts.HeldMax; s.held.max <= 0 {
		s.held.max = heldMax
	}
	if s.auth == nil {
		s.auth = nobody{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.stall <= 0 {
		s.stall = stallDefault
	}
	if s.page <= 0 || s.page > pageSizeMax {
		s.page = pageSizeMax
	}
	if s.crowd.max <= 0 {
		s.crowd.max = clientRequestsMax
	}
	return s
}

// call is one request on its way through a handler.
type call struct {
	*request
	held  *held
	ctx   context.Context
	w     *pacedWriter
	r     *http.Request
	body  *pacedBody
	actor gatehouse.Actor
}

// header is short for the response's header.
func (c *call) header() http.Header { return c.w.Header() }

// endpoint is what the server does with one kind of request.
type endpoint struct {
	action string // that the actor needs on the repository
	serve  func(*server, *call) error
}

// endpoints is the table of the spec. A kind that is missing here is refused.
var endpoints = [kindCount]endpoint{
	kindPing:           {ActionPull, (*server).ping},
	kindBlobGet:        {ActionPull, (*server).getBlob},
	kindManifestGet:    {ActionPull, (*server).getManifest},
	kindTags:           {ActionPull, (*server).listTags},
	kindReferrers:      {ActionPull, (*server).listReferrers},
	kindCatalog:        {ActionCatalog, (*server).listRepos},
	kindUploadStart:    {ActionPush, (*server).startUpload},
	kindUploadWhole:    {ActionPush, (*server).uploadWhole},
	kindBlobMount:      {ActionPush, (*server).mountBlob},
	kindUploadGet:      {ActionPush, (*server).uploadStatus},
	kindUploadPatch:    {ActionPush, (*server).patchUpload},
	kindUploadPut:      {ActionPush, (*server).putUpload},
	kindUploadDelete:   {ActionPush, (*server).cancelUpload},
	kindManifestPut:    {ActionPush, (*server).putManifest},
	kindManifestDelete: {ActionDelete, (*server).deleteManifest},
	kindBlobDelete:     {ActionDelete, (*server).deleteBlob},
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	h := w.Header()
	h.Set("Docker-Distribution-API-Version", "registry/2.0")
	h.Set("X-Content-Type-Options", "nosniff") // the console may live on the same origin
	out, body := pace(w, r, s.stall)
	kind, err := s.serve(out, r, body)
	if err != nil {
		s.writeError(out, r, err)
	}
	out.finish() // not deferred: a panic must not flush a 200
	if s.observe != nil {
		if r.Method == http.MethodHead {
			out.total = 0 // net/http took the body and dropped it
		}
		s.observe(kindNames[kind], out.status, time.Since(start).Seconds(), body.total, out.total)
	}
}

func (s *server) serve(w *pacedWriter, r *http.Request, body *pacedBody) (kind, error) {
	client := clientOf(r)
	if !s.crowd.enter(client) {
		w.Header().Set("Connection", "close")
		return kindNone, tooCrowded()
	}
	defer s.crowd.leave(client)
	req, err := parse(r.Method, r.URL)
	if err != nil {
		return kindNone, err
	}
	e := endpoints[req.kind]
	if e.serve == nil {
		return kindNone, unknownEndpoint()
	}
	actor, err := s.auth.Authenticate(r)
	if err != nil {
		return req.kind, s.challenge(w, r, err, e.action, req.repo)
	}
	c := &call{request: req, held: &s.held, ctx: r.Context(), w: w, r: r, body: body, actor: actor}
	if err := s.allow(c, e.action, req.repo); err != nil {
		return req.kind, s.challenge(w, r, err, e.action, req.repo)
	}
	return req.kind, e.serve(s, c)
}
