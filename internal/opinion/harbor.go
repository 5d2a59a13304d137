package opinion

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/adapter"
)

// harbor asks a scanner through Harbor's pluggable scanner API. The base URL is
// what is registered in Harbor: /api/v1 is added.
type harbor struct{ *web }

// adapterToken sends a token in the way of its form.
func adapterToken(token string) func(*http.Request) {
	user, password, both := strings.Cut(token, ":")
	return func(r *http.Request) {
		switch {
		case both:
			r.SetBasicAuth(user, password)
		case token != "":
			r.Header.Set("Authorization", "Bearer "+token)
		}
	}
}

func (h *harbor) ask(ctx context.Context, img Image) (Opinion, error) {
	body, err := json.Marshal(adapter.ScanRequest{
		Registry: adapter.Registry{URL: img.Registry, Authorization: img.Authorization},
		Artifact: adapter.Artifact{Repository: string(img.Repo), Digest: img.Digest, MIMEType: img.MediaType},
		Capabilities: []adapter.EnabledCapability{{
			Type: adapter.CapabilityVulnerability, Produces: []string{adapter.TypeReport, adapter.TypeHarborReport},
		}},
	})
	if err != nil {
		return Opinion{}, err
	}
	a, err := h.send(ctx, http.MethodPost, "api/v1/scan", nil, adapter.TypeScanResponse, adapter.TypeScanRequest, body)
	if err != nil {
		return Opinion{}, err
	}
	if a.status != http.StatusAccepted {
		return Opinion{}, h.refused(a, "take the scan")
	}
	var accepted adapter.ScanResponse
	if err := json.Unmarshal(a.body, &accepted); err != nil || accepted.ID == "" || len(accepted.ID) > textMax {
		return Opinion{}, invalid("it holds no id of a scan")
	}
	accept := adapter.TypeReport
	for {
		a, err := h.send(ctx, http.MethodGet, "api/v1/scan/"+url.PathEscape(accepted.ID)+"/report", nil, accept, "", nil)
		if err != nil {
			return Opinion{}, err
		}
		switch a.status {
		case http.StatusOK:
			return parseHarbor(a.body, img.Digest)
		case http.StatusFound:
			if err := h.wait(ctx, again(a.header.Get("Refresh-After"))); err != nil {
				return Opinion{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the scanner at %s has not finished in time", h.base.Host)
			}
			continue
		case http.StatusNotAcceptable, http.StatusUnprocessableEntity, http.StatusNotImplemented, http.StatusUnsupportedMediaType:
			// An adapter of an older version of the API: the same document under
			// another name.
			if accept == adapter.TypeReport {
				accept = adapter.TypeHarborReport
				continue
			}
		}
		return Opinion{}, h.refused(a, "give a report")
	}
}

// parseHarbor reads a HarborVulnerabilityReport about an artifact.
func parseHarbor(body []byte, want gatehouse.Digest) (Opinion, error) {
	var doc struct {
		GeneratedAt string `json:"generated_at"`
		Artifact    struct {
			Digest string `json:"digest"`
		} `json:"artifact"`
		Scanner         adapter.Scanner `json:"scanner"`
		Vulnerabilities json.RawMessage `json:"vulnerabilities"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return Opinion{}, invalid("it is not a report: %w", err)
	}
	// Some adapters write null where nothing was found.
	if len(doc.Vulnerabilities) == 0 {
		return Opinion{}, invalid("it lists no vulnerabilities, not even none")
	}
	var list []struct {
		ID          string `json:"id"`
		Package     string `json:"package"`
		Version     string `json:"version"`
		FixVersion  string `json:"fix_version"`
		Severity    string `json:"severity"`
		Description string `json:"description"`
	}
	if err := json.Unmarshal(doc.Vulnerabilities, &list); err != nil {
		return Opinion{}, invalid("it is not a report: %w", err)
	}
	if doc.Artifact.Digest != string(want) {
		return Opinion{}, invalid("it is about %.100q and not about %s", doc.Artifact.Digest, want)
	}
	o := Opinion{Scanner: text(doc.Scanner.Name), Version: text(doc.Scanner.Version)}
	o.GeneratedAt, _ = time.Parse(time.RFC3339, doc.GeneratedAt) // zero where it cannot be read
	if len(list) > FindingsMax {
		return Opinion{}, tooMany()
	}
	for _, v := range list {
		if v.ID == adapter.IncompleteID {
			o.Incomplete = append(o.Incomplete, text(v.Description))
			continue
		}
		f, ok := Finding{
			ID: v.ID, Package: v.Package, Version: v.Version, FixedVersion: v.FixVersion, Severity: adapter.ParseSeverity(v.Severity),
		}.tidy()
		if !ok {
			return Opinion{}, invalid("a vulnerability has no id or no package")
		}
		o.Findings = append(o.Findings, f)
	}
	return o, nil
}
