package opinion

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// clair asks a Clair v4 (httptransport/api/v1/openapi.yaml of quay/clair): its
// indexer fetches the layers from us, its matcher says what is wrong. The base
// URL is that of both, as of a Clair in combo mode or behind one name.
type clair struct {
	*web
	key []byte // pre-shared; nil: Clair asks for none
	now func() time.Time
}

const (
	clairIssuer    = "gatehouse" // must be among auth.psk.iss of Clair's settings
	clairTokenLife = 5 * time.Minute

	typeClairManifest = "application/vnd.clair.manifest.v1+json"
	typeClairIndex    = "application/vnd.clair.index_report.v1+json, application/json"
	typeClairReport   = "application/vnd.clair.vulnerability_report.v1+json, application/json"
	clairFinished     = "IndexFinished"
	clairFailed       = "IndexError"
)

type clairManifest struct {
	Hash   gatehouse.Digest `json:"hash"`
	Layers []clairLayer     `json:"layers"`
}

type clairLayer struct {
	Hash    gatehouse.Digest    `json:"hash"`
	URI     string              `json:"uri"`
	Headers map[string][]string `json:"headers,omitempty"`
}

// clairIndexReport is the part of an index_report that tells how it went.
type clairIndexReport struct {
	Hash    string `json:"manifest_hash"`
	State   string `json:"state"`
	Success bool   `json:"success"`
	Err     string `json:"err"`
}

func clairKey(token string) ([]byte, error) {
	if token == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(token))
	if err != nil || len(key) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the token is not the base64 of a key").WithHint("it is auth.psk.key of Clair's settings")
	}
	return key, nil
}

// jwt makes a token as Clair wants it (RFC 7519, HS256).
func (c *clair) jwt() string {
	now := c.now()
	enc := base64.RawURLEncoding
	claims, _ := json.Marshal(map[string]any{ // a map of strings and numbers always marshals
		"iss": clairIssuer, "iat": now.Add(-time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(clairTokenLife).Unix(),
	})
	signed := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString(claims)
	mac := hmac.New(sha256.New, c.key)
	mac.Write([]byte(signed))
	return signed + "." + enc.EncodeToString(mac.Sum(nil))
}

func (c *clair) call(ctx context.Context, method, path, accept, mediaType string, body []byte) (answer, error) {
	w := *c.web
	if c.key != nil {
		w.authorize = func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+c.jwt()) }
	}
	return w.send(ctx, method, path, url.Values{}, accept, mediaType, body)
}

func (c *clair) ask(ctx context.Context, img Image) (Opinion, error) {
	if img.Digest.Algorithm() != gatehouse.SHA256 {
		return Opinion{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "Clair knows images by sha256 only")
	}
	if err := c.index(ctx, img); err != nil {
		return Opinion{}, err
	}
	a, err := c.call(ctx, http.MethodGet, "matcher/api/v1/vulnerability_report/"+string(img.Digest), typeClairReport, "", nil)
	if err != nil {
		return Opinion{}, err
	}
	// The document says 201; it answers 200.
	if a.status != http.StatusOK && a.status != http.StatusCreated {
		return Opinion{}, c.refused(a, "give a report")
	}
	return parseClair(a.body, img.Digest)
}

// index has the layers read. Clair answers when that is over; where a proxy or
// our own patience ends before, the index report is looked at until it is.
func (c *clair) index(ctx context.Context, img Image) error {
	m := clairManifest{Hash: img.Digest, Layers: []clairLayer{}}
	for _, d := range img.Layers {
		l := clairLayer{Hash: d, URI: strings.TrimRight(img.Registry, "/") + "/v2/" + string(img.Repo) + "/blobs/" + string(d)}
		if img.Authorization != "" {
			l.Headers = map[string][]string{"Authorization": {img.Authorization}}
		}
		m.Layers = append(m.Layers, l)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	a, err := c.call(ctx, http.MethodPost, "indexer/api/v1/index_report", typeClairIndex, typeClairManifest, body)
	var late interface{ Timeout() bool }
	slow := errors.As(err, &late) && late.Timeout() || a.status == http.StatusGatewayTimeout
	switch {
	case slow && ctx.Err() == nil:
	case err != nil:
		return err
	case a.status != http.StatusCreated && a.status != http.StatusOK:
		return c.refused(a, "index the image")
	default:
		if done, err := indexed(a.body, img.Digest); done || err != nil {
			return err
		}
	}
	for {
		if err := c.wait(ctx, pollDefault); err != nil {
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "the scanner at %s has not finished in time", c.base.Host)
		}
		a, err := c.call(ctx, http.MethodGet, "indexer/api/v1/index_report/"+string(img.Digest), typeClairIndex, "", nil)
		switch {
		case err != nil:
			return err
		case a.status == http.StatusNotFound:
			continue // it has not begun to write it
		case a.status != http.StatusOK:
			return c.refused(a, "tell of the index")
		}
		if done, err := indexed(a.body, img.Digest); done || err != nil {
			return err
		}
	}
}

// indexed reads an index_report: whether it is finished, and how.
func indexed(body []byte, want gatehouse.Digest) (done bool, err error) {
	var r clairIndexReport
	if err := json.Unmarshal(body, &r); err != nil {
		return false, invalid("it is not an index report: %w", err)
	}
	if r.Hash != string(want) {
		return false, invalid("it is about %.100q and not about %s", r.Hash, want)
	}
	if r.Err != "" || r.State == clairFailed {
		return false, gatehouse.Errorf(gatehouse.CodeUnavailable, "Clair could not index the image: %s", text(r.Err))
	}
	return r.Success && (r.State == clairFinished || r.State == ""), nil
}

type clairPackage struct {
	Name    string        `json:"name"`
	Version string        `json:"version"`
	Source  *clairPackage `json:"source"`
}

type clairVulnerability struct {
	Name     string `json:"name"`
	Links    string `json:"links"`
	Severity string `json:"normalized_severity"`
	Fixed    string `json:"fixed_in_version"`
}

// clairNames are the ids that names and links of Clair's records hold: a name is
// what the vendor wrote, "CVE-2009-5155 on Ubuntu 18.04" or "RHSA-2021:1: …".
var clairNames = regexp.MustCompile(`\b(?:CVE-\d{4}-\d{4,}|GHSA(?:-[23456789cfghjmpqrvwx]{4}){3}|RH[SBE]A-\d{4}:\d{3,}|(?:ALAS|ELSA|DSA|DLA|USN|GO|PYSEC|RUSTSEC)[A-Z0-9]*-\d+(?:-\d+)*)\b`)

// parseClair reads a vulnerability_report about an image.
func parseClair(body []byte, want gatehouse.Digest) (Opinion, error) {
	var doc struct {
		Hash            string                        `json:"manifest_hash"`
		Packages        map[string]clairPackage       `json:"packages"`
		Vulnerabilities map[string]clairVulnerability `json:"vulnerabilities"`
		Of              map[string][]string           `json:"package_vulnerabilities"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return Opinion{}, invalid("it is not a vulnerability report: %w", err)
	}
	if doc.Hash != string(want) {
		return Opinion{}, invalid("it is about %.100q and not about %s", doc.Hash, want)
	}
	if doc.Vulnerabilities == nil || doc.Of == nil {
		return Opinion{}, invalid("it has no vulnerabilities or package_vulnerabilities")
	}
	o := Opinion{Scanner: "Clair"}
	for _, id := range slices.Sorted(maps.Keys(doc.Of)) {
		p, ok := doc.Packages[id]
		if !ok {
			return Opinion{}, invalid("package %.50q is vulnerable and not listed", id)
		}
		for _, vuln := range doc.Of[id] {
			v, ok := doc.Vulnerabilities[vuln]
			if !ok {
				return Opinion{}, invalid("vulnerability %.50q is named and not listed", vuln)
			}
			if len(o.Findings) >= FindingsMax {
				return Opinion{}, tooMany()
			}
			f, ok := clairFinding(p, v).tidy()
			if !ok {
				return Opinion{}, invalid("a vulnerability or its package has no name")
			}
			o.Findings = append(o.Findings, f)
		}
	}
	return o, nil
}

func clairFinding(p clairPackage, v clairVulnerability) Finding {
	severity, err := gatehouse.ParseSeverity(strings.ToUpper(v.Severity))
	if err != nil {
		severity = gatehouse.SeverityUnknown
	}
	f := Finding{ID: v.Name, Package: p.Name, Version: p.Version, FixedVersion: v.Fixed, Severity: severity}
	if p.Source != nil {
		f.Source = p.Source.Name
	}
	// Links are examined as far as they could matter: hundreds are an attack.
	const linksMax = 64 << 10
	names := clairNames.FindAllString(v.Name+" "+v.Links[:min(len(v.Links), linksMax)], aliasesMax)
	if in := clairNames.FindString(v.Name); in != "" {
		f.ID = in
	}
	f.Aliases = names
	return f
}
