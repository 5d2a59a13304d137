// Package api is the REST interface under /api/v1: verdicts, findings, reports,
// events, advisories, malware lists, exceptions, policies, decisions, signatures,
// promotions, break-glass tokens, signed facts, settings of projects, tags and garbage of one server. It parses requests, asks its [Backend] and the
// interfaces beside it, and writes JSON or RFC 9457 problems. It decides nothing.
package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of request bodies, in bytes.
const (
	AdvisoriesSizeMax = 4 << 30 // an OSV export of every ecosystem
	PolicySizeMax     = 1 << 20
	MatchSizeMax      = 64 << 20
	PackagesMax       = 100_000 // of one inventory: "{}" is two bytes here and hundreds in memory
)

// bodyTimeMax is how long a client may take to send a body.
const bodyTimeMax = time.Minute

// policyName is the grammar of a policy's name, which is a file name in what
// people read.
var policyName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,199}$`)

// Access answers who asks and whether they may.
type Access interface {
	Authenticate(r *http.Request) (gatehouse.Actor, error)
	// Challenge is the WWW-Authenticate header of a 401.
	Challenge(r *http.Request, scope string) string
	// Allow reports whether actor may do action ("pull") in repo.
	Allow(ctx context.Context, actor gatehouse.Actor, action string, repo gatehouse.Repo) bool
}

// Images answers questions about stored images. Results are JSON documents.
type Images interface {
	// Verdict answers the current verdict of an image.
	Verdict(ctx context.Context, image gatehouse.Ref) (any, error)
	// Report is the scan report of an image, whole.
	Report(ctx context.Context, image gatehouse.Ref) (any, error)
	// Resolve finds the repository that a reference names on this server.
	// CodeNotFound: the reference belongs to another registry.
	Resolve(image gatehouse.Ref) (gatehouse.Repo, error)
}

// Advisories keeps the advisory database.
type Advisories interface {
	// Import takes one file of a feed, or a whole advisory database as an OCI
	// artifact, which replaces all that there is.
	Import(ctx context.Context, actor gatehouse.Actor, in AdvisoryImport, body io.Reader) (any, error)
	Status(ctx context.Context) (any, error)
	// Match finds what is wrong with packages that somebody else has indexed.
	Match(ctx context.Context, inv gatehouse.Inventory) (any, error)
	// Explain tells what the advisories say of the flaw that is called id, and of
	// packages that somebody else has indexed.
	Explain(ctx context.Context, inv gatehouse.Inventory, id string) (any, error)
}

// AdvisoryImport says what is imported.
type AdvisoryImport struct {
	Name  string // of the file, for people
	Feed  string // that the file is the whole of; empty adds its records
	Force bool   // also where it is older than what is there
}

// Policies keeps policy documents and decisions.
type Policies interface {
	List(ctx context.Context) (any, error)
	// Put answers what may not be meant about a document that it took.
	Put(ctx context.Context, actor gatehouse.Actor, name string, source []byte) (any, error)
	Delete(ctx context.Context, actor gatehouse.Actor, name string) error
	Decision(ctx context.Context, id string) (gatehouse.Decision, error)
	// Simulate judges what was reviewed by other policies.
	Simulate(ctx context.Context, in Simulation) (any, error)
}

// Options of the API. All but Sigstore are required.
type Options struct {
	Access     Access
	Images     Images
	Advisories Advisories
	Feeds      Feeds
	Policies   Policies
	Garbage    Garbage
	Tags       Tags
	Storage    Storage
	Findings   Findings
	Malware    Malware
	Exceptions Exceptions
	Signatures Signatures
	Projects   Projects
	Sigstore   Sigstore // nil: off
	Promotions Promotions
	BreakGlass BreakGlass
	Facts      Facts
	Running    Running
	Log        *slog.Logger
}

type handler struct{ Options }

// New returns the handler of /api/v1.
func New(o Options) http.Handler {
	h := handler{o}
	mux := http.NewServeMux()
	for pattern, f := range map[string]func(http.ResponseWriter, *http.Request, gatehouse.Actor) error{
		"GET /api/v1/verdicts":           h.verdict,
		"GET /api/v1/reports":            h.report,
		"GET /api/v1/advisories":         h.advisoryStatus,
		"POST /api/v1/advisories":        h.advisoryImport,
		"GET /api/v1/advisories/export":  h.advisoryExport,
		"GET /api/v1/feeds":              h.feedStatus,
		"POST /api/v1/feeds/update":      h.feedUpdate,
		"POST /api/v1/feeds/remove":      h.feedRemove,
		"POST /api/v1/match":             h.match,
		"POST /api/v1/explain":           h.explain,
		"GET /api/v1/policies":           h.policyList,
		"PUT /api/v1/policies/{name}":    h.policyPut,
		"DELETE /api/v1/policies/{name}": h.policyDelete,
		"POST /api/v1/policies/simulate": h.policySimulate,
		"GET /api/v1/decisions/{id}":     h.decision,
		"POST /api/v1/fsck":              h.fsck,
		"GET /api/v1/scrub":              h.scrub,
		"GET /api/v1/sigstore":           h.sigstoreShow,
		"POST /api/v1/sigstore/rotate":   h.sigstoreRotate,

		"GET /api/v1/exceptions":         h.exceptionList,
		"POST /api/v1/exceptions":        h.exceptionCreate,
		"GET /api/v1/exceptions/{id}":    h.exceptionShow,
		"DELETE /api/v1/exceptions/{id}": h.exceptionDelete,

		"GET /api/v1/gc":                        h.gcStatus,
		"POST /api/v1/gc/run":                   h.gcRun,
		"GET /api/v1/gc/explain":                h.gcExplain,
		"GET /api/v1/holds":                     h.holdList,
		"POST /api/v1/holds":                    h.holdAdd,
		"DELETE /api/v1/holds":                  h.holdRelease,
		"GET /api/v1/repositories/{path...}":    h.tagGet,
		"POST /api/v1/repositories/{path...}":   h.tagPost,
		"DELETE /api/v1/repositories/{path...}": h.tagDelete,

		"POST /api/v1/promotions":           h.promote,
		"GET /api/v1/promotions":            h.promotionList,
		"GET /api/v1/promotions/key":        h.promotionKey,
		"GET /api/v1/scan-attestations/key": h.scanKey,

		"POST /api/v1/break-glass":        h.breakGlassCreate,
		"GET /api/v1/break-glass":         h.breakGlassList,
		"DELETE /api/v1/break-glass/{id}": h.breakGlassRevoke,
		"GET /api/v1/break-glass/key":     h.breakGlassKey,

		"GET /api/v1/images":                     h.imageList,
		"GET /api/v1/images/{digest}/findings":   h.imageFindings,
		"GET /api/v1/images/{digest}/history":    h.imageHistory,
		"GET /api/v1/images/{digest}/base":       h.imageBase,
		"GET /api/v1/images/{digest}/opinions":   h.imageOpinions,
		"GET /api/v1/events":                     h.eventList,
		"GET /api/v1/malware":                    h.malwareStatus,
		"POST /api/v1/malware/rescan":            h.malwareRescan,
		"GET /api/v1/malware/lists":              h.malwareList,
		"PUT /api/v1/malware/lists/{name}":       h.malwarePut,
		"DELETE /api/v1/malware/lists/{name}":    h.malwareDelete,
		"GET /api/v1/images/{digest}/signatures": h.imageSignatures,

		"GET /api/v1/facts":         h.facts,
		"GET /api/v1/facts/changes": h.factChanges,
		"GET /api/v1/facts/key":     h.factsKey,
		"GET /api/v1/running":       h.running,

		"GET /api/v1/projects":                          h.projectList,
		"GET /api/v1/projects/{project}/pull-policy":    h.pullPolicyShow,
		"PUT /api/v1/projects/{project}/pull-policy":    h.pullPolicyPut,
		"DELETE /api/v1/projects/{project}/pull-policy": h.pullPolicyDelete,
		"GET /api/v1/projects/{project}/immutable-tags": h.immutableTagsShow,
		"PUT /api/v1/projects/{project}/immutable-tags": h.immutableTagsPut,
	} {
		mux.Handle(pattern, h.wrap(f))
	}
	mux.Handle("/api/", h.wrap(func(_ http.ResponseWriter, r *http.Request, _ gatehouse.Actor) error {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no %s %s", r.Method, r.URL.Path).WithHint("see docs/api.md for what there is")
	}))
	return mux
}

func (h handler) wrap(f func(http.ResponseWriter, *http.Request, gatehouse.Actor) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // binds also a body that nobody reads
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeMax))
		}
		actor, err := h.Access.Authenticate(r)
		if err == nil {
			err = f(w, r, actor)
		}
		if err != nil {
			h.problem(w, r, actor, err)
		}
	})
}

var statuses = map[gatehouse.Code]int{
	gatehouse.CodeNotFound:    http.StatusNotFound,
	gatehouse.CodeInvalid:     http.StatusBadRequest,
	gatehouse.CodeDenied:      http.StatusForbidden,
	gatehouse.CodeConflict:    http.StatusConflict,
	gatehouse.CodeTooLarge:    http.StatusRequestEntityTooLarge,
	gatehouse.CodeTooMany:     http.StatusTooManyRequests,
	gatehouse.CodeUnavailable: http.StatusServiceUnavailable,
	gatehouse.CodeDamaged:     http.StatusInternalServerError,
}

// Problem is the body of every error (RFC 9457).
type Problem struct {
	Type   string         `json:"type"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail"`
	Code   gatehouse.Code `json:"code"`
	Hint   string         `json:"hint,omitempty"`
}

func (h handler) problem(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor, err error) {
	code := gatehouse.CodeOf(err)
	status, known := statuses[code]
	p := Problem{Type: "about:blank", Code: code, Hint: gatehouse.HintOf(err)}
	var e *gatehouse.Error
	switch {
	case !known:
		status, p.Detail = http.StatusInternalServerError, "something broke inside; the log has the details"
		h.Log.ErrorContext(r.Context(), "api error", "method", r.Method, "path", r.URL.Path, "error", err)
	case errors.As(err, &e):
		p.Detail = e.Message
	case code == gatehouse.CodeUnavailable:
		p.Detail = "the server did not come to an end in time"
	}
	if code == gatehouse.CodeDenied && actor.Anonymous() && e.Detail != "DENIED" { // no name would change that one
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", h.Access.Challenge(r, ""))
	}
	p.Status, p.Title = status, http.StatusText(status)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(p)
}

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(append(b, '\n'))
	_ = err // the client has gone; nobody is left to tell
	return nil
}

func admin(actor gatehouse.Actor) error {
	if actor.Admin {
		return nil
	}
	return gatehouse.Errorf(gatehouse.CodeDenied, "this needs an administrator").WithHint("sign in as one")
}

// known refuses strangers: anonymous pull is a right to pull, not to ask.
func known(actor gatehouse.Actor) error {
	if !actor.Anonymous() {
		return nil
	}
	return gatehouse.Errorf(gatehouse.CodeDenied, "this needs a name and a password").WithHint("sign in")
}

// image reads the reference of a query and checks that actor may see it.
func (h handler) image(r *http.Request, actor gatehouse.Actor) (gatehouse.Ref, error) {
	q := r.URL.Query()
	ref, err := gatehouse.ParseRef(q.Get("reference"))
	if err != nil {
		return ref, err
	}
	if d := q.Get("digest"); d != "" {
		if ref.Digest, err = gatehouse.ParseDigest(d); err != nil {
			return ref, err
		}
	}
	repo, err := h.Images.Resolve(ref)
	if err != nil {
		return ref, err
	}
	if !h.Access.Allow(r.Context(), actor, "pull", repo) {
		return ref, gatehouse.Errorf(gatehouse.CodeDenied, "you may not read %s", repo)
	}
	return ref, nil
}

func (h handler) verdict(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	ref, err := h.image(r, actor)
	if err != nil {
		return err
	}
	v, err := h.Images.Verdict(r.Context(), ref)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) report(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	ref, err := h.image(r, actor)
	if err != nil {
		return err
	}
	v, err := h.Images.Report(r.Context(), ref)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) advisoryStatus(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	v, err := h.Advisories.Status(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) advisoryImport(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	// An export of every ecosystem takes longer than other requests may.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(30 * time.Minute))
	q := r.URL.Query()
	in := AdvisoryImport{Name: cmp.Or(clip(q.Get("name")), "upload"), Feed: q.Get("feed"), Force: q.Get("force") == "true"}
	body := &clientBody{Reader: http.MaxBytesReader(w, r.Body, AdvisoriesSizeMax)}
	v, err := h.Advisories.Import(r.Context(), actor, in, body)
	if body.err != nil {
		return brokeOff(tooLarge(body.err))
	}
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) policyList(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	v, err := h.Policies.List(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) policyPut(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	name := r.PathValue("name")
	if !policyName.MatchString(name) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "policy name %q is not a file name", name).
			WithHint("use letters, digits and . _ -, for example production.yaml")
	}
	source, err := readAll(w, r, PolicySizeMax)
	if err != nil {
		return err
	}
	v, err := h.Policies.Put(r.Context(), actor, name, source)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) policyDelete(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	if err := h.Policies.Delete(r.Context(), actor, r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h handler) decision(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	d, err := h.Policies.Decision(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, d)
}

// packages are those of an inventory, counted while they are read.
type packages []gatehouse.Package

func (p *packages) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return json.Unmarshal(b, (*[]gatehouse.Package)(p)) // null, or an error that says what it is
	}
	for dec.More() {
		if len(*p) == PackagesMax {
			return gatehouse.Errorf(gatehouse.CodeTooLarge, "the inventory has more than %d packages", PackagesMax)
		}
		var one gatehouse.Package
		if err := dec.Decode(&one); err != nil {
			return err
		}
		*p = append(*p, one)
	}
	return nil
}

// readAll reads a whole body while the client keeps up.
func readAll(w http.ResponseWriter, r *http.Request, max int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, max))
	if err != nil { // the deadline stays: net/http reads what is left before it answers
		return nil, brokeOff(tooLarge(err))
	}
	// From here on it would look like a client that leaves.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return b, nil
}

// clientBody remembers that the client failed, so that nobody else is blamed.
type clientBody struct {
	io.Reader
	err error
}

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// brokeOff blames the client for a body that did not arrive whole.
func brokeOff(err error) error {
	if gatehouse.CodeOf(err) != gatehouse.CodeInternal {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the body broke off: %w", err)
}

func tooLarge(err error) error {
	var m *http.MaxBytesError
	if errors.As(err, &m) {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the body is larger than %d bytes", m.Limit)
	}
	return err
}
