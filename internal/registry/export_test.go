package registry

import (
	"fmt"
	"net/url"
)

const (
	TagsPerPutMax     = tagsPerPutMax
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

// ParseContentRange returns the first and last byte of a chunk.
func ParseContentRange(s string) (first, last int64, err error) {
	c, err := parseContentRange(s)
	return c.first, c.last, err
}

// StatusOf is the answer to an error.
func StatusOf(err error) (int, string) { return statusOf(err) }
