package registry

import "net/http"

// deleteManifest serves end-9: by tag the tag alone, by digest the manifest and
// every tag that points at it.
func (s *server) deleteManifest(c *call) error {
	var err error
	if c.tag != "" {
		err = s.content.DeleteTag(c.ctx, c.actor, c.repo, c.tag)
	} else {
		err = s.content.DeleteManifest(c.ctx, c.actor, c.repo, c.digest)
	}
	if err != nil {
		return err
	}
	c.w.empty(http.StatusAccepted)
	return nil
}

// deleteBlob serves end-10.
func (s *server) deleteBlob(c *call) error {
	if err := s.content.DeleteBlob(c.ctx, c.actor, c.repo, c.digest); err != nil {
		return err
	}
	c.w.empty(http.StatusAccepted)
	return nil
}
