package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	referrerPagesMax   = 50      // of one listing
	referrerEntriesMax = 10_000  // of one listing
	drainMax           = 4 << 10 // bytes read from a body to keep its connection
)

// Registry is another registry as a [gatehouse.ContentReader] with referrers.
// Manifests and blobs are verified against their digests.
type Registry struct {
	client *Client
	host   string
}

var _ gatehouse.ContentReader = (*Registry)(nil)

// Manifest returns a manifest by digest.
func (r *Registry) Manifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return nil, err
	}
	return r.fetchManifest(ctx, repo, string(digest), digest)
}

// ManifestByTag returns the manifest that tag points at now.
func (r *Registry) ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	if !gatehouse.ValidTag(tag) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "tag %q is invalid", tag)
	}
	return r.fetchManifest(ctx, repo, tag, "")
}

func (r *Registry) fetchManifest(ctx context.Context, repo gatehouse.Repo, reference string, want gatehouse.Digest) (*gatehouse.Manifest, error) {
	header := http.Header{"Accept": {strings.Join([]string{typeOCIManifest, typeOCIIndex, typeDockerManifest, typeDockerList}, ", ")}}
	resp, err := r.get(ctx, repo, "manifests/"+reference, nil, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := r.readAll(resp, gatehouse.ManifestSizeMax, "manifest "+reference)
	if err != nil {
		return nil, err
	}
	digest := want
	if digest == "" {
		// The header only chooses the algorithm; what counts are the bytes.
		digest = gatehouse.DigestOf(body)
		if said, err := gatehouse.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
			digest = said
		}
	}
	if !digest.Matches(body) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "registry %s sent other bytes than %s for manifest %s", r.host, digest, reference).
			WithDetail("DIGEST_INVALID")
	}
	m, _, err := parseManifest(body, resp.Header.Get("Content-Type"), digest)
	if err != nil {
		return nil, err
	}
	m.Repo = repo
	return m, nil
}

// StatBlob tells the size of a blob, -1 where the registry does not say.
func (r *Registry) StatBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (gatehouse.Descriptor, error) {
	resp, err := r.do(ctx, repo, http.MethodHead, "blobs/"+string(digest), nil, nil)
	if err != nil {
		return gatehouse.Descriptor{}, err
	}
	defer resp.Body.Close()
	return gatehouse.Descriptor{MediaType: "application/octet-stream", Digest: digest, Size: resp.ContentLength}, nil
}

// OpenBlob opens a blob. Reading it to the end verifies it; it can be read from
// the start only, since a part of it could not be verified. Its Size is -1
// where the registry does not say.
func (r *Registry) OpenBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Blob, error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return nil, err
	}
	resp, err := r.get(ctx, repo, "blobs/"+string(digest), nil, nil)
	if err != nil {
		return nil, err
	}
	d := gatehouse.Descriptor{MediaType: "application/octet-stream", Digest: digest, Size: resp.ContentLength}
	return &gatehouse.Blob{Descriptor: d, Body: &remoteBody{verified: newVerified(resp.Body, digest, d.Size)}}, nil
}

// remoteBody lets a caller ask for the size by seeking, as io.Seeker's users
// do, and refuses to jump.
type remoteBody struct {
	*verified
	jump int64 // position that a Seek asked for, minus the true one
}

func (b *remoteBody) Seek(offset int64, whence int) (int64, error) {
	switch {
	case whence == io.SeekCurrent:
		offset += b.n + b.jump
	case whence == io.SeekEnd && b.size >= 0:
		offset += b.size
	case whence == io.SeekEnd:
		return 0, errors.New("the size of the blob is unknown")
	}
	if offset < 0 {
		return 0, errors.New("negative position")
	}
	b.jump = offset - b.n
	return offset, nil
}

func (b *remoteBody) Read(p []byte) (int, error) {
	if b.jump != 0 {
		return 0, errors.New("a blob of another registry can be read from its start only")
	}
	return b.verified.Read(p)
}

// blob reads a layer for an [Image], which verifies it.
func (s *repoStore) blob(ctx context.Context, d gatehouse.Descriptor) (io.ReadCloser, error) {
	resp, err := s.get(ctx, s.repo, "blobs/"+string(d.Digest), nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Referrers lists the manifests whose subject is digest: through the API, or
// through the fallback tag where a registry has no API (distribution-spec,
// listing referrers). An unknown digest has none. It goes through all pages of
// the registry and orders them by digest; after and n choose among them.
func (r *Registry) Referrers(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, artifactType string, after gatehouse.Digest, n int) ([]gatehouse.Descriptor, error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return nil, err
	}
	all, err := r.referrers(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	// Registries promise no order; this one is the same on every page.
	slices.SortStableFunc(all, func(a, b gatehouse.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	var out []gatehouse.Descriptor
	for _, d := range all {
		if len(out) >= n {
			break
		}
		if d.Digest > after && (artifactType == "" || d.ArtifactType == artifactType) {
			out = append(out, d)
		}
	}
	return out, nil
}

func (r *Registry) referrers(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) ([]gatehouse.Descriptor, error) {
	var all []gatehouse.Descriptor
	path, query := "referrers/"+string(digest), url.Values(nil)
	for page := 0; ; page++ {
		if page >= referrerPagesMax || len(all) > referrerEntriesMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more referrers than can be listed", digest)
		}
		resp, err := r.get(ctx, repo, path, query, http.Header{"Accept": {typeOCIIndex}})
		if page == 0 && noReferrersAPI(resp, err) {
			return r.fallbackReferrers(ctx, repo, digest)
		}
		if err != nil {
			return nil, err
		}
		body, err := r.readAll(resp, gatehouse.ManifestSizeMax, "referrers of "+string(digest))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		var index document
		if err := json.Unmarshal(body, &index); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "registry %s lists referrers that are not JSON: %w", r.host, err)
		}
		all = append(all, index.Manifests...)
		next, ok := nextPage(resp)
		if !ok {
			return all, nil
		}
		query = next
	}
}

// noReferrersAPI reports whether a registry answered as one that does not know
// the referrers API: some say 404, some 400 or 406, some serve their web page.
func noReferrersAPI(resp *http.Response, err error) bool {
	if err != nil {
		var s *statusCause
		return errors.As(err, &s) && (s.status == http.StatusNotFound || s.status == http.StatusBadRequest ||
			s.status == http.StatusNotAcceptable || s.status == http.StatusMethodNotAllowed)
	}
	t, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if strings.TrimSpace(t) == typeOCIIndex {
		return false
	}
	resp.Body.Close()
	return true
}

// FallbackTag is the tag under which clients keep the referrers of digest in a
// registry without the API (distribution-spec, referrers tag schema).
func FallbackTag(digest gatehouse.Digest) string { return digest.FallbackTag() }

func (r *Registry) fallbackReferrers(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) ([]gatehouse.Descriptor, error) {
	m, err := r.ManifestByTag(ctx, repo, FallbackTag(digest))
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, doc, err := parseManifest(m.Body, m.MediaType, m.Digest)
	if err != nil {
		return nil, err
	}
	return doc.Manifests, nil
}

// nextPage reads the Link header. Only its query is used, so that a registry
// cannot send the listing elsewhere.
func nextPage(resp *http.Response) (url.Values, bool) {
	link := resp.Header.Get("Link")
	start, end := strings.Index(link, "<"), strings.Index(link, ">")
	if start < 0 || end < start || !strings.Contains(link[end:], "next") {
		return nil, false
	}
	u, err := url.Parse(link[start+1 : end])
	if err != nil || u.RawQuery == "" {
		return nil, false
	}
	return u.Query(), true
}

func (r *Registry) get(ctx context.Context, repo gatehouse.Repo, path string, query url.Values, header http.Header) (*http.Response, error) {
	return r.do(ctx, repo, http.MethodGet, path, query, header)
}

// do sends a request without a body and turns every answer but 200 into an
// error.
func (r *Registry) do(ctx context.Context, repo gatehouse.Repo, method, path string, query url.Values, header http.Header) (*http.Response, error) {
	l := login{registry: r.host, repo: repo, actions: "pull"}
	rt, reg, err := r.client.login(ctx, l)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: reg.Scheme(), Host: reg.RegistryStr(), Path: fmt.Sprintf("/v2/%s/%s", repo, path), RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return nil, r.client.explain(err, r.host)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		r.client.forget(l) // a token may have been revoked; the next call logs in anew
	}
	return nil, r.answer(resp)
}

// statusCause keeps the HTTP status for those who must tell answers apart.
type statusCause struct {
	status int
	text   string
}

func (s *statusCause) Error() string { return s.text }

func (r *Registry) answer(resp *http.Response) error {
	err := r.status(resp)
	if after := retryAfter(resp, time.Now()); after > 0 {
		return &askedToWait{err, after}
	}
	return err
}

func (r *Registry) status(resp *http.Response) error {
	err := transport.CheckError(resp, http.StatusOK)
	var said *transport.Error
	if !errors.As(err, &said) {
		return statusError(r.host, resp.StatusCode, "", &statusCause{resp.StatusCode, "the answer cannot be read"})
	}
	detail, text := "", http.StatusText(resp.StatusCode)
	if len(said.Errors) > 0 {
		detail, text = string(said.Errors[0].Code), clip(said.Errors[0].String())
	}
	return statusError(r.host, resp.StatusCode, detail, &statusCause{resp.StatusCode, text})
}

func (r *Registry) readAll(resp *http.Response, max int64, what string) ([]byte, error) {
	if resp.ContentLength > max {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has %d bytes, %d at most", what, resp.ContentLength, max)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, max+1))
	if err != nil {
		return nil, r.client.explain(err, r.host)
	}
	if int64(len(body)) > max {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", what, max)
	}
	_, _ = io.CopyN(io.Discard, resp.Body, drainMax) // only to keep the connection
	return body, nil
}

// clip keeps foreign text in messages short and on one line.
func clip(s string) string { return gatehouse.Foreign(s, 200) }
