package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// An upload goes on when its client has left: what has arrived is kept for the
// next request of the session. The context of its writes is therefore free of
// the request's end; the body fails by itself.
func (c *call) lasting() context.Context { return context.WithoutCancel(c.ctx) }

// startUpload serves end-4a.
func (s *server) startUpload(c *call) error {
	up, err := s.content.StartUpload(c.lasting(), c.actor, c.repo, c.algorithm)
	if err != nil {
		return err
	}
	c.session(up)
	c.w.empty(http.StatusAccepted)
	return nil
}

// uploadWhole serves end-4b: one request, all bytes. A session that fails here
// has no other name by which it could go on, so it ends.
func (s *server) uploadWhole(c *call) error {
	ctx := c.lasting()
	up, err := s.content.StartUpload(ctx, c.actor, c.repo, c.algorithm)
	if err != nil {
		return err
	}
	d, err := s.appendAndCommit(ctx, c, up, -1, c.body)
	if err != nil {
		if stop := up.Cancel(ctx); stop != nil && gatehouse.CodeOf(stop) != gatehouse.CodeNotFound {
			s.log.WarnContext(ctx, "registry upload not cancelled", "upload", up.ID(), "err", stop)
		}
		return err
	}
	c.created(d)
	return nil
}

// mountSourcesMax bounds the repositories that are looked at for a blob whose
// place was not named.
const mountSourcesMax = 64

// mountBlob serves end-11. Whatever stands in the way, a right that is missing
// above all, the answer is a session to upload into: a 401 or 403 here breaks
// whole builds, and would tell what the actor may not know. Without ?from= any
// repository that the actor may read will do (automatic content discovery).
func (s *server) mountBlob(c *call) error {
	sources := []gatehouse.Repo{c.from}
	if c.anywhere {
		var err error
		if sources, err = s.content.BlobRepos(c.ctx, c.mount, mountSourcesMax); err != nil {
			return err
		}
	}
	for _, from := range sources {
		if from == "" || !s.auth.Allow(c.ctx, c.actor, ActionPull, from) {
			continue
		}
		d, err := s.content.MountBlob(c.lasting(), c.actor, c.repo, from, c.mount)
		switch {
		case err == nil:
			c.created(d)
			return nil
		case gatehouse.CodeOf(err) != gatehouse.CodeNotFound:
			return err
		}
	}
	return s.startUpload(c)
}

// uploadStatus serves end-13.
func (s *server) uploadStatus(c *call) error {
	up, err := s.resume(c)
	if err != nil {
		return err
	}
	c.session(up)
	c.w.empty(http.StatusNoContent)
	return nil
}

// patchUpload serves end-5: a chunk with Content-Range, or a stream without.
func (s *server) patchUpload(c *call) error {
	up, err := s.resume(c)
	if err != nil {
		return err
	}
	offset, src, err := c.chunk(up)
	if err != nil {
		return err
	}
	if _, err := up.Append(c.lasting(), offset, src); err != nil {
		return c.uploadFailed(up, err)
	}
	c.session(up)
	c.w.empty(http.StatusAccepted)
	return nil
}

// putUpload serves end-6: the end of a session, with or without a last chunk.
func (s *server) putUpload(c *call) error {
	up, err := s.resume(c)
	if err != nil {
		return err
	}
	offset, src, err := c.chunk(up)
	if err != nil {
		return err
	}
	d, err := s.appendAndCommit(c.lasting(), c, up, offset, src)
	if err != nil {
		return err
	}
	c.created(d)
	return nil
}

// cancelUpload serves end-14.
func (s *server) cancelUpload(c *call) error {
	up, err := s.resume(c)
	if err != nil {
		return err
	}
	if err := up.Cancel(c.lasting()); err != nil {
		return err
	}
	c.w.empty(http.StatusNoContent)
	return nil
}

func (s *server) resume(c *call) (gatehouse.Upload, error) {
	return s.content.ResumeUpload(c.lasting(), c.actor, c.repo, c.upload)
}

func (s *server) appendAndCommit(ctx context.Context, c *call, up gatehouse.Upload, offset int64, src io.Reader) (gatehouse.Descriptor, error) {
	if c.r.ContentLength != 0 { // -1: told by the body alone
		if _, err := up.Append(ctx, offset, src); err != nil {
			return gatehouse.Descriptor{}, c.uploadFailed(up, err)
		}
	}
	d, err := up.Commit(ctx, c.digest)
	if gatehouse.CodeOf(err) == gatehouse.CodeInvalid { // the session has ended
		c.noSession()
	}
	return d, err
}

// chunk returns where the body belongs and the body itself, which fails unless
// it has the length that Content-Range promises.
func (c *call) chunk(up gatehouse.Upload) (offset int64, body io.Reader, err error) {
	header := strings.TrimSpace(strings.Join(c.r.Header.Values("Content-Range"), ", ")) // two of them are no range
	if header == "" {
		return -1, c.body, nil
	}
	if c.kind == kindUploadPut && c.r.ContentLength == 0 {
		return -1, c.body, nil // some clients leave the header of the last PATCH on
	}
	c.session(up) // whatever comes of it, the client learns where to go on
	want, err := parseContentRange(header)
	if err != nil {
		return 0, nil, err
	}
	if want.first != up.Offset() {
		return 0, nil, outOfOrder(want.first, up.Offset())
	}
	if c.r.ContentLength >= 0 && c.r.ContentLength != want.length() {
		return 0, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "Content-Range %s has %d bytes, Content-Length is %d",
			clip(header), want.length(), c.r.ContentLength).WithDetail("SIZE_INVALID")
	}
	return want.first, &exactly{r: c.body, left: want.length()}, nil
}

func outOfOrder(first, offset int64) *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeConflict, "the chunk begins at byte %d, the upload is at byte %d", first, offset).
		WithDetail("RANGE_INVALID").WithHint("go on from there")
}

// uploadFailed completes the answer to a chunk that was not stored whole: where
// the session stands, so that the client can go on.
func (c *call) uploadFailed(up gatehouse.Upload, err error) error {
	err = c.body.blame(err)
	if errors.Is(err, errChunkLength) {
		err = gatehouse.Errorf(gatehouse.CodeInvalid, "the body is not as long as its Content-Range says").WithDetail("SIZE_INVALID")
	}
	if c.kind != kindUploadWhole { // that session ends here
		c.session(up)
	}
	return err
}

// session tells where an upload is and how to reach it: by path alone, because
// clients add their own query to it.
func (c *call) session(up gatehouse.Upload) {
	h := c.header()
	h.Set("Location", "/v2/"+string(c.repo)+"/blobs/uploads/"+up.ID())
	h.Set("Docker-Upload-UUID", up.ID())
	h.Set("Range", uploadRange(up.Offset()))
}

// noSession takes back what session said.
func (c *call) noSession() {
	for _, name := range []string{"Location", "Docker-Upload-UUID", "Range"} {
		c.header().Del(name)
	}
}

// created answers with the place of a blob.
func (c *call) created(d gatehouse.Descriptor) {
	c.noSession()
	h := c.header()
	h.Set("Location", "/v2/"+string(c.repo)+"/blobs/"+string(d.Digest))
	h.Set("Docker-Content-Digest", string(d.Digest))
	c.w.empty(http.StatusCreated)
}

var errChunkLength = errors.New("the chunk has another length than announced")

// exactly reads left bytes and fails if there are fewer or more.
type exactly struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		var one [1]byte
		switch n, err := io.ReadFull(e.r, one[:]); {
		case n > 0:
			return 0, errChunkLength
		default:
			return 0, err
		}
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = errChunkLength
	}
	return n, err
}
