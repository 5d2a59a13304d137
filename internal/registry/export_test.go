package registry

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
)

const (
	TagsPerPutMax     = tagsPerPutMax
	PageSizeMax       = pageSizeMax
	UploadIDLengthMax = uploadIDLengthMax
	LastLengthMax     = lastLengthMax
	RangesMax         = rangesMax
	ReferrersSizeMax  = referrersSizeMax
	ReferrersBatch    = referrersBatch
	PaceOut           = paceOut
	CatalogScanMax    = catalogScanMax
)

// Parse prints the request that method and target make, in one line.
func Parse(method, target string) (string, *url.URL, error) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return "", nil, err
	}
	r, err := parse(method, u)
	if err != nil {
		return "", u, err
	}
	out := kindNames[r.kind]
	add := func(key string, value any) {
		if s := fmt.Sprint(value); s != "" && s != "[]" {
			out += " " + key + "=" + s
		}
	}
	add("repo", r.repo)
	add("digest", r.digest)
	add("tag", r.tag)
	add("tags", r.tags)
	add("upload", r.upload)
	add("mount", r.mount)
	add("from", r.from)
	if r.anywhere {
		add("from", "anywhere")
	}
	add("algorithm", r.algorithm)
	if r.paged {
		add("n", r.n)
	}
	add("last", r.last)
	add("artifactType", r.artifactType)
	return out, u, nil
}

// Complete reports whether every kind has a handler and an action.
func Complete() bool {
	for k := kindNone + 1; k < kindCount; k++ {
		if endpoints[k].serve == nil || endpoints[k].action == "" {
			return false
		}
	}
	return endpoints[kindNone].serve == nil
}

// NextLink is the target of the Link header to the page of n after last.
func NextLink(path, last string, n int, query url.Values) string {
	w := httptest.NewRecorder()
	c := &call{request: &request{paged: n >= 0, n: n}, w: &pacedWriter{ResponseWriter: w}}
	c.next(path, last, query)
	target, _, _ := strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
	return target
}

// ParseContentRange returns the first and last byte of a chunk.
func ParseContentRange(s string) (first, last int64, err error) {
	c, err := parseContentRange(s)
	return c.first, c.last, err
}

// StatusOf is the answer to an error.
func StatusOf(err error) (int, string) { return statusOf(err) }
