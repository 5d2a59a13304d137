package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/adapter"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
)

// billSizeMax bounds a bill that is kept for another registry, in bytes.
const billSizeMax = 128 << 20

// scan pulls an image, looks at it, and writes the reports by kind.
func (a *adapterScans) scan(ctx context.Context, scan db.AdapterScan) (map[string][]byte, error) {
	var r adapterJob
	if err := json.Unmarshal(scan.Request, &r); err != nil {
		return nil, err
	}
	authorization, err := a.box.Open(scan.Sealed, []byte(scan.ID))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the credentials of the scan cannot be read: the adapter's token has changed since")
	}
	registry, err := url.Parse(r.Registry)
	if err != nil {
		return nil, err
	}
	client := a.client(registry, string(authorization))
	// Whoever may not read the manifest learns nothing of layers that are known.
	img, err := client.Image(ctx, gatehouse.Ref{Registry: registry.Host, Repo: r.Repo, Digest: r.Artifact.Digest}, fetch.Platform{})
	if err != nil {
		return nil, err
	}
	defer img.Close()
	if img.Index != "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is an index: its images are scanned one by one", img.Index)
	}
	foreign := pipeline.Foreign{Digest: img.Ref.Digest, Config: img.Config}
	for _, l := range img.Layers {
		foreign.Layers = append(foreign.Layers, pipeline.ForeignLayer{Descriptor: l.Descriptor, Open: l.Open, Stat: func(ctx context.Context) error {
			_, err := client.Registry(registry.Host).StatBlob(ctx, r.Repo, l.Digest)
			return err
		}})
	}
	inv, found, err := a.pipeline.LookAt(ctx, foreign)
	if err != nil {
		return nil, err
	}
	return a.reports(r, registry.Host, img, inv, found)
}

func (a *adapterScans) reports(r adapterJob, host string, img *fetch.Image, inv gatehouse.Inventory, found []gatehouse.Finding) (map[string][]byte, error) {
	out := map[string][]byte{}
	self, now := adapter.Self(a.version), a.now().UTC()
	if r.Vulnerabilities {
		doc, err := json.Marshal(adapter.NewReport(r.Artifact, self, now, inv, found))
		if err != nil {
			return nil, err
		}
		out[reportVulnerabilities] = doc
	}
	for _, mediaType := range r.SBOMs {
		format := sbom.SPDX
		if mediaType == sbom.CycloneDX.MediaType() {
			format = sbom.CycloneDX
		}
		var b bytes.Buffer
		repository := host + "/" + string(r.Repo)
		err := sbom.Write(&b, format, inv, sbom.Options{
			Name: repository + "@" + string(r.Artifact.Digest), Repository: repository, Platform: img.Platform.String(), Version: a.version, Created: createdOf(img.Config),
		})
		if err != nil {
			return nil, err
		}
		if b.Len() > billSizeMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the SBOM has more than %d bytes", billSizeMax)
		}
		attributes := map[string]any{"complete": inv.Complete}
		if !inv.Complete {
			attributes["incomplete"] = inv.Incomplete
		}
		doc, err := json.Marshal(adapter.SBOMReport{
			GeneratedAt: now, Artifact: r.Artifact, Scanner: self, Attributes: attributes, MediaType: mediaType, SBOM: b.Bytes(),
		})
		if err != nil {
			return nil, err
		}
		out[mediaType] = doc
	}
	return out, nil
}

// createdOf is the time that an image configuration tells of itself, zero where
// it tells none.
func createdOf(config []byte) time.Time {
	var c struct {
		Created string `json:"created"`
	}
	if json.Unmarshal(config, &c) != nil {
		return time.Time{}
	}
	created, _ := time.Parse(time.RFC3339Nano, c.Created) // zero where it is no time
	return created
}

// client reads from one registry with the credentials of one scan.
func (a *adapterScans) client(registry *url.URL, authorization string) *fetch.Client {
	o := fetch.Options{Transport: onlyTo{host: registry.Host, inner: a.transport}}
	if registry.Scheme == "http" {
		o.Insecure = []string{registry.Host}
	}
	switch scheme, value, _ := strings.Cut(authorization, " "); strings.ToLower(scheme) {
	case "bearer":
		o.Credentials = fetch.Token(registry.Host, value)
	case "basic":
		if b, err := base64.StdEncoding.DecodeString(value); err == nil {
			user, password, _ := strings.Cut(string(b), ":")
			o.Credentials = fetch.Password(registry.Host, user, password)
		}
	}
	return fetch.New(o)
}

// onlyTo keeps credentials from every host but one: a challenge or redirect of
// the registry names where tokens are to be had, and it must not be believed.
type onlyTo struct {
	host  string
	inner http.RoundTripper
}

func (o onlyTo) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.EqualFold(r.URL.Host, o.host) && r.Header.Get("Authorization") != "" {
		clean := r.Clone(r.Context())
		clean.Header.Del("Authorization")
		r = clean
	}
	return o.inner.RoundTrip(r)
}
