package adapter

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// RequestSizeMax bounds the body of a scan request, in bytes.
	RequestSizeMax   = 64 << 10
	authorizationMax = 16 << 10 // bytes
	capabilitiesMax  = 16
	urlMax           = 1024 // bytes
)

// Details of errors that have a status of their own.
const (
	detailMalformed  = "MALFORMED"  // not JSON, or values of another type: 400
	detailIncapable  = "INCAPABLE"  // 501
	detailBadRequest = "BADREQUEST" // 400
)

// Request is a scan request that has been checked.
type Request struct {
	// Registry is the base URL without a path: scheme and host.
	Registry *url.URL
	// Authorization is "Basic …" or "Bearer …", or empty. It is a secret.
	Authorization string
	Artifact      Artifact
	Repo          gatehouse.Repo
	// Vulnerabilities and SBOMs say what is to be made: media types of bills.
	Vulnerabilities bool
	SBOMs           []string
}

// ParseRequest reads and checks the body of a scan request. Fields that it does
// not know are left alone, as newer versions of the API may add some.
// Errors: CodeInvalid.
func ParseRequest(body []byte) (Request, error) {
	var doc ScanRequest
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&doc); err != nil {
		return Request{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the request is not a JSON document of a scan request: %s", jsonProblem(err)).WithDetail(detailMalformed)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Request{}, gatehouse.Errorf(gatehouse.CodeInvalid, "something stands behind the JSON document").WithDetail(detailMalformed)
	}
	r := Request{Artifact: doc.Artifact, Authorization: doc.Registry.Authorization}
	var err error
	if r.Registry, err = registryURL(doc.Registry.URL); err != nil {
		return Request{}, err
	}
	if err := checkAuthorization(r.Authorization); err != nil {
		return Request{}, err
	}
	if r.Repo, err = gatehouse.ParseRepo(doc.Artifact.Repository); err != nil {
		return Request{}, invalidField("artifact.repository", "%.100q is not the name of a repository", doc.Artifact.Repository)
	}
	if r.Artifact.Digest, err = gatehouse.ParseDigest(string(doc.Artifact.Digest)); err != nil {
		return Request{}, invalidField("artifact.digest", "%.100q is not a digest", string(doc.Artifact.Digest))
	}
	if t := doc.Artifact.Tag; t != "" && !gatehouse.ValidTag(t) {
		return Request{}, invalidField("artifact.tag", "%.100q is not a tag", t)
	}
	if t := doc.Artifact.MIMEType; t == "" {
		return Request{}, invalidField("artifact.mime_type", "it is missing")
	} else if t != typeOCIManifest && t != typeDockerManifest {
		return Request{}, incapable("artifacts of type %.100q are not scanned, images are", t)
	}
	err = r.enable(doc.Capabilities)
	return r, err
}

// enable chooses what is made. A request that names nothing is for all of it.
func (r *Request) enable(list []EnabledCapability) error {
	if len(list) > capabilitiesMax {
		return invalidField("enabled_capabilities", "there are more than %d", capabilitiesMax)
	}
	if len(list) == 0 {
		list = []EnabledCapability{{Type: CapabilityVulnerability}, {Type: CapabilitySBOM}}
	}
	for _, c := range list {
		var produces []string
		switch c.Type {
		case CapabilityVulnerability:
			r.Vulnerabilities, produces = true, []string{TypeReport, TypeHarborReport}
		case CapabilitySBOM:
			produces = []string{TypeSBOMReport}
			types := []string{gatehouse.TypeSPDX, gatehouse.TypeCycloneDX}
			if c.Parameters != nil && len(c.Parameters.SBOMMediaTypes) > 0 {
				types = c.Parameters.SBOMMediaTypes
			}
			for _, t := range types {
				if t != gatehouse.TypeSPDX && t != gatehouse.TypeCycloneDX {
					return invalidField("enabled_capabilities.parameters.sbom_media_types", "%.100q is neither %s nor %s", t, gatehouse.TypeSPDX, gatehouse.TypeCycloneDX)
				}
				if !slices.Contains(r.SBOMs, t) {
					r.SBOMs = append(r.SBOMs, t)
				}
			}
		default:
			return incapable("there is no capability %.100q", c.Type)
		}
		for _, t := range c.Produces {
			if !slices.ContainsFunc(produces, func(p string) bool { return sameType(p, t) }) {
				return incapable("capability %s does not produce %.100q", c.Type, t)
			}
		}
	}
	return nil
}

func registryURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return nil, invalidField("registry.url", "it is missing")
	case err != nil || len(s) > urlMax || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, invalidField("registry.url", "it is not an http:// or https:// URL")
	case u.User != nil:
		return nil, invalidField("registry.url", "it holds credentials, which belong into registry.authorization")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, invalidField("registry.url", "something stands behind the host")
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host)}, nil
}

// checkAuthorization never repeats what it was given.
func checkAuthorization(s string) error {
	if s == "" {
		return nil
	}
	scheme, value, _ := strings.Cut(s, " ")
	plain := len(s) <= authorizationMax && value != "" && !strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' })
	switch {
	case !plain:
	case strings.EqualFold(scheme, "Bearer"):
		return nil
	case strings.EqualFold(scheme, "Basic"):
		if b, err := base64.StdEncoding.DecodeString(value); err == nil && bytes.ContainsRune(b, ':') {
			return nil
		}
	}
	return invalidField("registry.authorization", "it is neither Basic nor Bearer as HTTP has them")
}

func invalidField(field, format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, field+": "+format, args...)
}

func incapable(format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, format, args...).WithDetail(detailIncapable)
}

// jsonProblem tells what is wrong with JSON without repeating any of it: a
// request holds a secret.
func jsonProblem(err error) string {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) && len(kind.Field) < 100 {
		return "the value of " + kind.Field + " is of another type"
	}
	return "it cannot be parsed"
}

// sameType compares media types with their version, however they are spaced.
func sameType(a, b string) bool {
	ta, pa, erra := mime.ParseMediaType(a)
	tb, pb, errb := mime.ParseMediaType(b)
	return erra == nil && errb == nil && ta == tb && pa["version"] == pb["version"]
}
