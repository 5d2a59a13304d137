package registry

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// immutable is the Cache-Control of what is named by its digest. Without
// "public" shared caches keep nothing that needed credentials (RFC 9111 3.5).
const immutable = "max-age=31536000, immutable"

// ping serves end-1: may I come in, and do you speak this protocol?
func (s *server) ping(c *call) error {
	c.w.json(http.StatusOK, "application/json", []byte("{}\n"))
	return nil
}

// getBlob serves end-2, GET and HEAD. Ranges, ETag and preconditions are those
// of net/http.
func (s *server) getBlob(c *call) error {
	var blob *gatehouse.Blob
	if c.r.Method == http.MethodHead {
		d, err := s.content.StatBlob(c.ctx, c.repo, c.digest)
		if err != nil {
			return err
		}
		blob = &gatehouse.Blob{Descriptor: d, Body: &unread{size: d.Size}}
	} else {
		sent, err := s.redirectBlob(c)
		if err != nil || sent {
			return err
		}
		if blob, err = s.content.OpenBlob(c.ctx, c.repo, c.digest); err != nil {
			return err
		}
	}
	defer blob.Body.Close()
	h := c.header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", string(c.digest))
	h.Set("ETag", `"`+string(c.digest)+`"`)
	h.Set("Cache-Control", immutable)
	if err := filterRange(c.w, c.r, blob.Size); err != nil {
		return err
	}
	if c.r.Method == http.MethodGet && !conditional(c.r.Header) {
		return c.w.whole(blob.Body, blob.Size)
	}
	http.ServeContent(c.w, c.r, "", time.Time{}, blob.Body)
	return nil
}

// conditional reports whether the answer may be another one than the whole
// (RFC 9110 sections 13.1 and 14.2).
func conditional(h http.Header) bool {
	for _, name := range [...]string{"Range", "If-None-Match", "If-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if _, ok := h[name]; ok {
			return true
		}
	}
	return false
}

// redirectBlob sends the client to storage, where that gives addresses. The
// client asks there with its Range header, and without our credentials. The
// address works for some minutes, so that nobody may keep the answer.
func (s *server) redirectBlob(c *call) (sent bool, err error) {
	l, ok := s.content.(gatehouse.BlobLinker)
	if !ok {
		return false, nil
	}
	url, err := l.LinkBlob(c.ctx, c.repo, c.digest)
	if err != nil || url == "" {
		return false, err
	}
	h := c.header()
	h.Set("Location", url)
	h.Set("Docker-Content-Digest", string(c.digest))
	h.Set("Cache-Control", "no-store")
	c.w.empty(http.StatusTemporaryRedirect)
	return true, nil
}

// getManifest serves end-3, GET and HEAD. The stored bytes are served as they
// are, whatever the Accept header says: another form would have another digest,
// and "not found" for what is there has cost users days elsewhere. The
// Content-Type tells what it is.
func (s *server) getManifest(c *call) error {
	var m *gatehouse.Manifest
	var err error
	if c.tag != "" {
		m, err = s.content.ManifestByTag(c.ctx, c.repo, c.tag)
	} else {
		m, err = s.content.Manifest(c.ctx, c.repo, c.digest)
	}
	// Clients that push ask first, and leave out what is there. Of an image that
	// has been damaged nothing may be left out.
	if c.r.Method == http.MethodHead && (gatehouse.CodeOf(err) == gatehouse.CodeDamaged || err == nil && m.Broken) {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "the manifest, or something that it needs, has been damaged").WithDetail("MANIFEST_UNKNOWN")
	}
	if err != nil {
		return err
	}
	if m.Pull != gatehouse.PullOff {
		if err := s.mayPull(c, m); err != nil {
			return err
		}
	}
	release, err := c.held.hold(int64(len(m.Body)))
	if err != nil {
		return err
	}
	defer release()
	h := c.header()
	h.Set("Content-Type", m.MediaType)
	h.Set("Docker-Content-Digest", string(m.Digest))
	h.Set("ETag", `"`+string(m.Digest)+`"`)
	if c.tag != "" || m.Pull != gatehouse.PullOff {
		h.Set("Cache-Control", "no-cache") // a tag moves, and so do policies: ask again, by ETag
	} else {
		h.Set("Cache-Control", immutable)
	}
	c.r.Header.Del("Range") // no client asks for half a manifest
	http.ServeContent(c.w, c.r, "", time.Time{}, bytes.NewReader(m.Body))
	return nil
}

// mayPull asks whether a manifest may be served whose project asks something of
// pulls.
func (s *server) mayPull(c *call, m *gatehouse.Manifest) error {
	if s.gate == nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "whether this image may be pulled cannot be told here")
	}
	warning, err := s.gate.Pull(c.ctx, c.actor, m, c.tag)
	if err == nil && warning != "" {
		c.header().Set("Warning", warningOf(warning))
	}
	return err
}

// warningOf is the value of a Warning header (distribution-spec, "Warnings"; RFC
// 7234 section 5.5): code 299, no agent, quoted text of printable ASCII.
func warningOf(text string) string {
	const lengthMax = 1000
	b := make([]byte, 0, len(text))
	for _, r := range text {
		switch {
		case len(b) >= lengthMax:
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r > '~':
			b = append(b, '?')
		default:
			b = append(b, byte(r))
		}
	}
	return `299 - "` + string(b) + `"`
}

// unread has a size and no bytes: the content of a HEAD.
type unread struct{ size, at int64 }

// Read fails: net/http reads nothing for a HEAD whose Content-Type is set.
func (u *unread) Read([]byte) (int, error) { return 0, errors.New("the body of a HEAD was read") }

// Close implements io.Closer.
func (u *unread) Close() error { return nil }

// Seek implements io.Seeker.
func (u *unread) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += u.at
	case io.SeekEnd:
		offset += u.size
	}
	u.at = offset
	return offset, nil
}
