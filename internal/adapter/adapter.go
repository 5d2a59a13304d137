package adapter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Path is where the API is served.
const Path = "/scanner/api/v1"

const (
	// RefreshAfter is how many seconds a caller waits before it asks for a report
	// again. Harbor reads at most 127.
	RefreshAfter = 5
	idMax        = 64 // bytes of the id of a scan
	bodyTimeMax  = 10 * time.Second
	// requestsPerSecond and requestsBurst bound the scans that are asked for, of
	// all callers together.
	requestsPerSecond = 50
	requestsBurst     = 200
)

// APIKeyHeader is the third way in which Harbor sends what it was given.
const APIKeyHeader = "X-ScannerAdapter-API-Key"

// ErrRunning is the answer of [Scans] while a report is being made.
var ErrRunning = errors.New("the scan is not over")

// Scans are done elsewhere.
type Scans interface {
	// UpdatedAt is when the newest advisory in force was changed; zero: there are
	// none.
	UpdatedAt(ctx context.Context) (time.Time, error)
	// Accept queues a scan and returns its id. Errors: CodeDenied for a registry
	// that may not be asked, CodeTooMany, CodeUnavailable.
	Accept(ctx context.Context, r Request) (id string, err error)
	// Report returns a report as JSON: of vulnerabilities, or of a bill of
	// materials of the given media type. Errors: [ErrRunning]; CodeNotFound for an
	// unknown id; CodeInvalid where that report was not asked for; any other says
	// why the scan failed.
	Report(ctx context.Context, id, sbom string) ([]byte, error)
}

// Options of the adapter. All are required but Now.
type Options struct {
	Scans   Scans
	Token   string // what callers must know
	Version string // of this program
	Log     *slog.Logger
	Now     func() time.Time
}

type handler struct {
	Options
	token [sha256.Size]byte
	rate  bucket
}

// New returns the handler of everything under [Path].
func New(o Options) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	h := &handler{Options: o, token: sha256.Sum256([]byte(o.Token)), rate: bucket{perSecond: requestsPerSecond, size: requestsBurst}}
	mux := http.NewServeMux()
	for pattern, f := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET " + Path + "/metadata":         h.metadata,
		"POST " + Path + "/scan":            h.scan,
		"GET " + Path + "/scan/{id}/report": h.report,
	} {
		mux.Handle(pattern, h.wrap(f))
	}
	mux.Handle(Path+"/", h.wrap(func(_ http.ResponseWriter, r *http.Request) error {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no %.20s %.100s", r.Method, r.URL.Path)
	}))
	return mux
}

// Self is how this scanner calls itself.
func Self(version string) Scanner {
	return Scanner{Name: "Gatehouse", Vendor: "Gatehouse", Version: version}
}

func (h *handler) wrap(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeMax))
		}
		w.Header().Set("Cache-Control", "no-store")
		if !h.knows(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="Gatehouse scanner", charset="UTF-8"`)
			writeError(w, http.StatusUnauthorized, "the token is missing or wrong")
			return
		}
		if err := f(w, r); err != nil {
			h.fail(w, r, err)
		}
	})
}

// knows compares what the caller sent, in any of the ways that Harbor has: as
// the password of any user, as a bearer token, as a key.
func (h *handler) knows(r *http.Request) bool {
	sent := r.Header.Get(APIKeyHeader)
	if _, password, ok := r.BasicAuth(); ok {
		sent = password
	} else if scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		sent = strings.TrimSpace(value)
	}
	sum := sha256.Sum256([]byte(sent))
	return h.Token != "" && subtle.ConstantTimeCompare(sum[:], h.token[:]) == 1
}

func (h *handler) metadata(w http.ResponseWriter, r *http.Request) error {
	at, err := h.Scans.UpdatedAt(r.Context())
	if err != nil {
		return err
	}
	m := Metadata{Scanner: Self(h.Version), Capabilities: capabilities(), Properties: map[string]string{
		"harbor.scanner-adapter/scanner-type": "os-package-vulnerability",
	}}
	if !at.IsZero() {
		m.Properties["harbor.scanner-adapter/vulnerability-database-updated-at"] = at.UTC().Format(time.RFC3339)
	}
	return write(w, http.StatusOK, TypeMetadata, m)
}

func (h *handler) scan(w http.ResponseWriter, r *http.Request) error {
	if t := r.Header.Get("Content-Type"); t != "" {
		name, _, err := mime.ParseMediaType(t)
		if err != nil || name != "application/json" && name != "application/vnd.scanner.adapter.scan.request+json" {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "a body of type %.100q is not a scan request", t).WithDetail(detailMalformed)
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, RequestSizeMax))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the request has more than %d bytes", RequestSizeMax)
	}
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the request broke off").WithDetail(detailMalformed)
	}
	req, err := ParseRequest(body)
	if err != nil {
		return err
	}
	if !h.rate.take(h.Now()) {
		return gatehouse.Errorf(gatehouse.CodeTooMany, "too many scans are asked for at once")
	}
	id, err := h.Scans.Accept(r.Context(), req)
	if err != nil {
		return err
	}
	return write(w, http.StatusAccepted, TypeScanResponse, ScanResponse{ID: id})
}

func (h *handler) report(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if len(id) > idMax {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no such scan")
	}
	mediaType, err := negotiate(r.Header.Values("Accept"))
	if err != nil {
		return err
	}
	sbom := ""
	if mediaType == TypeSBOMReport {
		sbom = r.URL.Query().Get("sbom_media_type")
		if sbom != gatehouse.TypeSPDX && sbom != gatehouse.TypeCycloneDX {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "sbom_media_type is neither %s nor %s", gatehouse.TypeSPDX, gatehouse.TypeCycloneDX).WithDetail(detailBadRequest)
		}
	}
	doc, err := h.Scans.Report(r.Context(), id, sbom)
	if errors.Is(err, ErrRunning) {
		w.Header().Set("Refresh-After", strconv.Itoa(RefreshAfter))
		w.WriteHeader(http.StatusFound)
		return nil
	}
	var e *gatehouse.Error
	if errors.As(err, &e) && e.Code == gatehouse.CodeInvalid {
		return e.WithDetail(detailBadRequest)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(doc)))
	_, _ = w.Write(doc) // whoever left does not want it
	return nil
}

// negotiate chooses the report by the Accept header: the first one in it that
// there is. None, or anything, is the newest report of vulnerabilities.
func negotiate(accept []string) (string, error) {
	all := strings.Join(accept, ",")
	if strings.TrimSpace(all) == "" {
		return TypeReport, nil
	}
	for part := range strings.SplitSeq(all, ",") {
		name, params, err := mime.ParseMediaType(part)
		if err != nil || params["q"] == "0" {
			continue
		}
		for _, t := range []string{TypeReport, TypeHarborReport, TypeSBOMReport} {
			known, have, _ := mime.ParseMediaType(t)
			if name == known && (params["version"] == "" || params["version"] == have["version"]) {
				return t, nil
			}
		}
		if name == "*/*" || name == "application/*" || name == "application/json" {
			return TypeReport, nil
		}
	}
	return "", incapable("there is no report of type %.200q", all)
}

var statuses = map[gatehouse.Code]int{
	gatehouse.CodeNotFound:    http.StatusNotFound,
	gatehouse.CodeInvalid:     http.StatusUnprocessableEntity,
	gatehouse.CodeDenied:      http.StatusUnprocessableEntity, // a registry that is not in the settings
	gatehouse.CodeTooLarge:    http.StatusRequestEntityTooLarge,
	gatehouse.CodeTooMany:     http.StatusTooManyRequests,
	gatehouse.CodeUnavailable: http.StatusInternalServerError, // the API knows no other
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	code := gatehouse.CodeOf(err)
	status, known := statuses[code]
	message := "something broke inside; the log has the details"
	var e *gatehouse.Error
	switch {
	case !known:
		status = http.StatusInternalServerError
		h.Log.ErrorContext(r.Context(), "scanner adapter error", "method", r.Method, "path", r.URL.Path, "error", err)
	case errors.As(err, &e):
		message = e.Message
		switch e.Detail {
		case detailMalformed, detailBadRequest:
			status = http.StatusBadRequest
		case detailIncapable:
			status = http.StatusNotImplemented
		}
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "30")
	}
	writeError(w, status, message)
}

func writeError(w http.ResponseWriter, status int, message string) {
	_ = write(w, status, TypeError, ErrorResponse{Error: ErrorMessage{Message: message}})
}

func write(w http.ResponseWriter, status int, mediaType string, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	return nil
}
