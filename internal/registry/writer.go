package registry

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// putManifest serves end-7: the manifest and all its tags, or nothing.
func (s *server) putManifest(c *call) error {
	put := gatehouse.ManifestPut{Repo: c.repo, Digest: c.digest, Tags: c.tags}
	if c.tag != "" {
		put.Tags = append([]string{c.tag}, c.tags...)
	}
	var err error
	if put.MediaType, err = mediaType(c.r.Header.Values("Content-Type")); err != nil {
		return err
	}
	size := c.r.ContentLength
	if size < 0 || size > gatehouse.ManifestSizeMax { // not told, or refused before it is read
		size = gatehouse.ManifestSizeMax
	}
	release, err := c.held.hold(size)
	if err != nil {
		return err
	}
	defer release()
	if put.Body, err = c.manifestBody(); err != nil {
		return err
	}
	m, err := s.content.PutManifest(c.ctx, c.actor, put)
	if err != nil {
		return err
	}
	h := c.header()
	h.Set("Location", "/v2/"+string(c.repo)+"/manifests/"+string(m.Digest))
	h.Set("Docker-Content-Digest", string(m.Digest))
	if m.Subject != "" {
		h.Set("OCI-Subject", string(m.Subject))
	}
	for _, tag := range c.tags {
		h.Add("OCI-Tag", tag)
	}
	c.w.empty(http.StatusCreated)
	return nil
}

// manifestBody reads the body, which is small or refused: where the client says
// how long it is, before a byte of it is read.
func (c *call) manifestBody() ([]byte, error) {
	if c.r.ContentLength > gatehouse.ManifestSizeMax {
		return nil, manifestTooLarge()
	}
	body, err := io.ReadAll(io.LimitReader(c.body, gatehouse.ManifestSizeMax+1))
	if err != nil {
		return nil, c.body.blame(err)
	}
	if len(body) > gatehouse.ManifestSizeMax {
		return nil, manifestTooLarge()
	}
	return body, nil
}

func manifestTooLarge() *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeTooLarge, "the manifest is larger than %d bytes", gatehouse.ManifestSizeMax).WithDetail("SIZE_INVALID")
}

// mediaType is the type of a Content-Type header without its parameters. A
// request without one leaves the word to the manifest.
func mediaType(headers []string) (string, error) {
	header := strings.Join(headers, ", ") // two of them are no media type
	if header == "" {
		return "", nil
	}
	t, _, err := mime.ParseMediaType(header)
	if len(headers) > 1 || err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "Content-Type %q is no media type", clip(header)).WithDetail("MANIFEST_INVALID")
	}
	return t, nil
}
