package registry

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// pageSizeMax is the longest list in one answer.
	pageSizeMax = 10_000
	// catalogScanMax bounds the names that one catalog page looks at: an actor
	// who may see few of many repositories gets a short page and a Link.
	catalogScanMax = 100_000
	// referrersSizeMax is where a page of referrers ends, in bytes. Clients read
	// no more of a manifest (distribution-spec, "Listing Referrers").
	referrersSizeMax = 4<<20 - 64<<10
	// referrersBatch is asked of the store at once: annotations make descriptors
	// as large as a manifest, and all of a batch are in memory.
	referrersBatch = 32

	indexMediaType = "application/vnd.oci.image.index.v1+json"
)

// size is the number of entries that fit into the answer.
func (s *server) size(req *request) int {
	if req.paged {
		return min(req.n, s.page)
	}
	return s.page
}

// listTags serves end-8, in byte order.
func (s *server) listTags(c *call) error {
	// One more than fits tells whether there is a next page; it is also what
	// asks an empty page whether the repository exists.
	n := s.size(c.request)
	tags, err := s.content.Tags(c.ctx, c.repo, c.last, n+1)
	if err != nil {
		return err
	}
	if len(tags) > n {
		tags = tags[:n]
		c.next("/v2/"+string(c.repo)+"/tags/list", last(tags), nil)
	}
	if tags == nil {
		tags = []string{}
	}
	return c.document("application/json", struct {
		Name gatehouse.Repo `json:"name"`
		Tags []string       `json:"tags"`
	}{c.repo, tags})
}

// listRepos serves _catalog: the repositories that the actor may pull from.
func (s *server) listRepos(c *call) error {
	n, after, scanned := s.size(c.request), c.last, 0
	repos := []gatehouse.Repo{}
	for n > 0 {
		batch := n - len(repos) + 1
		found, err := s.content.Repos(c.ctx, after, batch)
		if err != nil {
			return err
		}
		for _, repo := range found {
			if !s.auth.Allow(c.ctx, c.actor, ActionPull, repo) {
				after = string(repo)
				continue
			}
			if len(repos) == n {
				c.next("/v2/_catalog", after, nil)
				return c.catalog(repos)
			}
			repos, after = append(repos, repo), string(repo)
		}
		scanned += len(found)
		if len(found) < batch {
			break
		}
		if scanned >= catalogScanMax {
			c.next("/v2/_catalog", after, nil)
			break
		}
	}
	return c.catalog(repos)
}

func (c *call) catalog(repos []gatehouse.Repo) error {
	return c.document("application/json", struct {
		Repositories []gatehouse.Repo `json:"repositories"`
	}{repos})
}

// listReferrers serves end-12: an image index of the manifests whose subject
// is the digest, oldest first.
func (s *server) listReferrers(c *call) error {
	query := url.Values{}
	if c.artifactType != "" {
		query.Set("artifactType", c.artifactType)
		c.header().Set("OCI-Filters-Applied", "artifactType")
	}
	manifests := []json.RawMessage{}
	n := s.size(c.request)
	size, after, more := 0, gatehouse.Digest(c.last), n > 0
	for more {
		found, err := s.content.Referrers(c.ctx, c.repo, c.digest, c.artifactType, after, referrersBatch)
		if err != nil {
			return err
		}
		more = len(found) == referrersBatch
		for _, d := range found {
			entry, err := json.Marshal(d)
			if err != nil {
				return err
			}
			full := len(manifests) == n || (len(manifests) > 0 && size+len(entry) > referrersSizeMax)
			if full {
				c.next("/v2/"+string(c.repo)+"/referrers/"+string(c.digest), string(after), query)
				more = false
				break
			}
			manifests, size, after = append(manifests, entry), size+len(entry)+1, d.Digest
		}
	}
	return c.document(indexMediaType, struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, indexMediaType, manifests})
}

// next adds the Link to the page after last (RFC 8288). A page of none has no
// next one.
func (c *call) next(path, last string, query url.Values) {
	if c.paged && c.n == 0 {
		return
	}
	if query == nil {
		query = url.Values{}
	}
	query.Set("last", last)
	if c.paged {
		query.Set("n", strconv.Itoa(c.n))
	}
	c.header().Set("Link", "<"+path+"?"+query.Encode()+`>; rel="next"`)
}

func last(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

// document answers 200 with v as JSON.
func (c *call) document(mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	release, err := c.held.hold(int64(len(body)))
	if err != nil {
		return err
	}
	defer release()
	c.w.json(http.StatusOK, mediaType, append(body, '\n'))
	return nil
}
