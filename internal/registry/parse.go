package registry

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// kind is one endpoint of the distribution-spec.
type kind int

const (
	kindNone           kind = iota // no endpoint: denied everywhere
	kindPing                       // end-1   GET    /v2/
	kindBlobGet                    // end-2   GET    /v2/<name>/blobs/<digest>
	kindManifestGet                // end-3   GET    /v2/<name>/manifests/<reference>
	kindUploadStart                // end-4a  POST   /v2/<name>/blobs/uploads/
	kindUploadWhole                // end-4b  POST   /v2/<name>/blobs/uploads/?digest=<digest>
	kindUploadPatch                // end-5   PATCH  /v2/<name>/blobs/uploads/<id>
	kindUploadPut                  // end-6   PUT    /v2/<name>/blobs/uploads/<id>?digest=<digest>
	kindManifestPut                // end-7   PUT    /v2/<name>/manifests/<reference>
	kindTags                       // end-8   GET    /v2/<name>/tags/list?n=<n>&last=<tag>
	kindManifestDelete             // end-9   DELETE /v2/<name>/manifests/<reference>
	kindBlobDelete                 // end-10  DELETE /v2/<name>/blobs/<digest>
	kindBlobMount                  // end-11  POST   /v2/<name>/blobs/uploads/?mount=<digest>&from=<name>
	kindReferrers                  // end-12  GET    /v2/<name>/referrers/<digest>?artifactType=<type>
	kindUploadGet                  // end-13  GET    /v2/<name>/blobs/uploads/<id>
	kindUploadDelete               // end-14  DELETE /v2/<name>/blobs/uploads/<id>
	kindCatalog                    // GET /v2/_catalog?n=<n>&last=<name>, of the older protocol
	kindCount
)

// kindNames are the kinds in metrics and tests.
var kindNames = [kindCount]string{
	kindNone: "invalid", kindPing: "ping", kindBlobGet: "blob-get", kindManifestGet: "manifest-get", kindUploadStart: "upload-start",
	kindUploadWhole: "upload-whole", kindUploadPatch: "upload-patch", kindUploadPut: "upload-put",
	kindManifestPut: "manifest-put", kindTags: "tags", kindManifestDelete: "manifest-delete",
	kindBlobDelete: "blob-delete", kindBlobMount: "blob-mount", kindReferrers: "referrers",
	kindUploadGet: "upload-get", kindUploadDelete: "upload-delete", kindCatalog: "catalog",
}

const (
	// tagsPerPutMax bounds ?tag=… of one manifest PUT; the spec asks for ten at
	// least and for 414 beyond a registry's limit.
	tagsPerPutMax = 100
	// uploadIDLengthMax is more than any id that a Content hands out.
	uploadIDLengthMax = 128
	// lastLengthMax bounds ?last=, a tag, repository or digest.
	lastLengthMax = 256
	// artifactTypeLengthMax is that of a media type (RFC 6838: 127/127).
	artifactTypeLengthMax = 255
)

// request is one call, parsed and checked: what is in here follows the grammar
// of the spec, whatever the client wrote.
type request struct {
	kind   kind
	repo   gatehouse.Repo
	digest gatehouse.Digest // of a blob, a manifest, a subject, the bytes of an upload
	tag    string           // of a manifest, when it was named by tag
	tags   []string         // further tags of a manifest PUT
	upload string           // id of a session

	mount     gatehouse.Digest // the blob to mount
	from      gatehouse.Repo   // where from
	anywhere  bool             // no place was named: wherever the actor may read
	algorithm string           // of the digest that will end an upload

	paged        bool   // ?n= was given
	n            int    // ?n=
	last         string // ?last=
	artifactType string // filter of referrers
}

// parse turns a method and a URL into a request. It does no I/O.
// Errors: CodeInvalid and CodeNotFound with the spec's code as detail.
func parse(method string, u *url.URL) (*request, error) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if strings.Contains(strings.ToLower(u.EscapedPath()), "%2f") {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the path contains an encoded slash").WithDetail("NAME_INVALID")
	}
	path, ok := strings.CutPrefix(u.Path, "/v2")
	if !ok || (path != "" && path[0] != '/') {
		return nil, unknownEndpoint()
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the query is malformed").WithDetail("UNSUPPORTED")
	}
	if err := once(query); err != nil {
		return nil, err
	}
	switch path = strings.TrimPrefix(path, "/"); path {
	case "":
		return only(method, &request{kind: kindPing})
	case "_catalog":
		req := &request{kind: kindCatalog}
		if err := req.page(query); err != nil {
			return nil, err
		}
		return only(method, req)
	}
	return parseNamed(method, strings.Split(path, "/"), query)
}

// parameters are those of a query that mean something here, with the spec's
// code for a value that is wrong. Others are nobody's business: mirrors' clients
// add ns, proxies add their own.
var parameters = map[string]string{
	"digest": "DIGEST_INVALID", "mount": "DIGEST_INVALID", "digest-algorithm": "DIGEST_INVALID", "from": "NAME_INVALID",
	"n": "PAGINATION_NUMBER_INVALID", "last": "PAGINATION_NUMBER_INVALID", "artifactType": "UNSUPPORTED",
}

// once refuses a parameter that is there twice: two readers of the request, a
// proxy with rules of its own and we, could each see another one.
func once(query url.Values) error {
	for name, values := range query {
		if code, ours := parameters[name]; ours && len(values) > 1 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the query names %s %d times", name, len(values)).WithDetail(code)
		}
	}
	return nil
}

// parseNamed parses what is inside a repository. The keyword is looked for from
// the end, because a repository's name may contain any of them.
func parseNamed(method string, parts []string, query url.Values) (*request, error) {
	end := len(parts)
	var parseTail func(method string, req *request, tail []string, query url.Values) (*request, error)
	switch {
	case end >= 4 && parts[end-3] == "blobs" && parts[end-2] == "uploads":
		parseTail, end = parseUpload, end-3
	case end >= 3 && parts[end-2] == "blobs" && parts[end-1] == "uploads":
		parseTail, end = parseUpload, end-2
	case end >= 3 && parts[end-2] == "blobs":
		parseTail, end = parseBlob, end-2
	case end >= 3 && parts[end-2] == "manifests":
		parseTail, end = parseManifest, end-2
	case end >= 3 && parts[end-2] == "referrers":
		parseTail, end = parseReferrers, end-2
	case end >= 3 && parts[end-2] == "tags" && parts[end-1] == "list":
		parseTail, end = parseTags, end-2
	default:
		return nil, unknownEndpoint()
	}
	repo, err := gatehouse.ParseRepo(strings.Join(parts[:end], "/"))
	if err != nil {
		return nil, err
	}
	return parseTail(method, &request{repo: repo}, parts[end:], query)
}

func parseUpload(method string, req *request, tail []string, query url.Values) (_ *request, err error) {
	if len(tail) == 2 || tail[2] == "" {
		return parseUploadStart(method, req, query)
	}
	req.upload = tail[2]
	if !validUploadID(req.upload) {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no such upload").WithDetail("BLOB_UPLOAD_UNKNOWN")
	}
	switch method {
	case http.MethodGet:
		req.kind = kindUploadGet
	case http.MethodPatch:
		req.kind = kindUploadPatch
	case http.MethodDelete:
		req.kind = kindUploadDelete
	case http.MethodPut:
		req.kind = kindUploadPut
		if req.digest, err = gatehouse.ParseDigest(query.Get("digest")); err != nil {
			return nil, err
		}
	default:
		return nil, wrongMethod("GET, HEAD, PATCH, PUT, DELETE")
	}
	return req, nil
}

func parseUploadStart(method string, req *request, query url.Values) (_ *request, err error) {
	if method != http.MethodPost {
		return nil, wrongMethod("POST")
	}
	switch req.algorithm = query.Get("digest-algorithm"); req.algorithm {
	case "", gatehouse.SHA256, gatehouse.SHA512:
	default:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "digest algorithm %q is not known", clip(req.algorithm)).
			WithDetail("DIGEST_INVALID").WithHint("use sha256 or sha512")
	}
	switch {
	case query.Has("mount"):
		req.kind = kindBlobMount
		if req.mount, err = gatehouse.ParseDigest(query.Get("mount")); err != nil {
			return nil, err
		}
		req.algorithm = req.mount.Algorithm()
		// A source that cannot exist is a source without the blob: the client
		// gets a session, as for any other that it cannot mount from.
		req.anywhere = query.Get("from") == ""
		if from, err := gatehouse.ParseRepo(query.Get("from")); err == nil {
			req.from = from
		}
	case query.Has("digest"):
		req.kind = kindUploadWhole
		if req.digest, err = gatehouse.ParseDigest(query.Get("digest")); err != nil {
			return nil, err
		}
		req.algorithm = req.digest.Algorithm()
	default:
		req.kind = kindUploadStart
	}
	return req, nil
}

func parseBlob(method string, req *request, tail []string, _ url.Values) (_ *request, err error) {
	if req.digest, err = gatehouse.ParseDigest(tail[1]); err != nil {
		return nil, err
	}
	switch method {
	case http.MethodGet:
		req.kind = kindBlobGet
	case http.MethodDelete:
		req.kind = kindBlobDelete
	default:
		return nil, wrongMethod("GET, HEAD, DELETE")
	}
	return req, nil
}

func parseManifest(method string, req *request, tail []string, query url.Values) (_ *request, err error) {
	switch method {
	case http.MethodGet:
		req.kind = kindManifestGet
	case http.MethodPut:
		req.kind = kindManifestPut
	case http.MethodDelete:
		req.kind = kindManifestDelete
	default:
		return nil, wrongMethod("GET, HEAD, PUT, DELETE")
	}
	// No tag has a colon, so that what has one was meant as a digest.
	reference := tail[1]
	switch {
	case strings.Contains(reference, ":"):
		if req.digest, err = gatehouse.ParseDigest(reference); err != nil {
			return nil, err
		}
	case gatehouse.ValidTag(reference):
		req.tag = reference
	case req.kind == kindManifestPut:
		return nil, invalidTag(reference)
	default:
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no manifest can have the tag %q", clip(reference)).WithDetail("MANIFEST_UNKNOWN")
	}
	if req.kind != kindManifestPut {
		return req, nil
	}
	return req.manifestQuery(query)
}

// manifestQuery reads ?tag=a&tag=b, and ?digest= where the manifest was named
// by tag: what the client asserts is checked, never dropped.
func (req *request) manifestQuery(query url.Values) (_ *request, err error) {
	if req.tag != "" && query.Has("digest") {
		if req.digest, err = gatehouse.ParseDigest(query.Get("digest")); err != nil {
			return nil, err
		}
	}
	if len(query["tag"]) > tagsPerPutMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%d tags in one request, %d at most", len(query["tag"]), tagsPerPutMax).
			WithDetail("URI_TOO_LONG").WithHint("put the manifest again with the rest of the tags")
	}
	for _, tag := range query["tag"] {
		if !gatehouse.ValidTag(tag) {
			return nil, invalidTag(tag)
		}
		if tag != req.tag && !slices.Contains(req.tags, tag) {
			req.tags = append(req.tags, tag)
		}
	}
	return req, nil
}

func parseReferrers(method string, req *request, tail []string, query url.Values) (_ *request, err error) {
	req.kind = kindReferrers
	if req.digest, err = gatehouse.ParseDigest(tail[1]); err != nil {
		return nil, err
	}
	if err := req.page(query); err != nil {
		return nil, err
	}
	if req.last != "" {
		if _, err := gatehouse.ParseDigest(req.last); err != nil {
			return nil, err
		}
	}
	req.artifactType = query.Get("artifactType")
	if len(req.artifactType) > artifactTypeLengthMax || !printable(req.artifactType) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "artifactType is no media type").WithDetail("UNSUPPORTED")
	}
	return only(method, req)
}

func parseTags(method string, req *request, _ []string, query url.Values) (*request, error) {
	req.kind = kindTags
	if err := req.page(query); err != nil {
		return nil, err
	}
	return only(method, req)
}

// page reads ?n= and ?last=. A page larger than pageSizeMax is cut, not refused.
func (req *request) page(query url.Values) error {
	req.last = query.Get("last")
	if len(req.last) > lastLengthMax || !printable(req.last) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "last=%q is no name", clip(req.last)).WithDetail("PAGINATION_NUMBER_INVALID")
	}
	if !query.Has("n") {
		return nil
	}
	n, err := strconv.ParseUint(query.Get("n"), 10, 63)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "n=%q is no number of entries", clip(query.Get("n"))).WithDetail("PAGINATION_NUMBER_INVALID")
	}
	req.paged, req.n = true, int(min(n, pageSizeMax))
	return nil
}

// only lets GET and HEAD through.
func only(method string, req *request) (*request, error) {
	if method != http.MethodGet {
		return nil, wrongMethod("GET, HEAD")
	}
	return req, nil
}

func unknownEndpoint() *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeNotFound, "the registry has no such endpoint").WithDetail("UNSUPPORTED")
}

func invalidTag(tag string) *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "tag %q is invalid", clip(tag)).
		WithDetail("MANIFEST_INVALID").WithHint("use letters, digits, _ . and -, 128 at most, not beginning with . or -")
}

// methodError is the cause of a 405; it carries the Allow header.
type methodError struct{ allow string }

func (e methodError) Error() string { return "allowed: " + e.allow }

func wrongMethod(allow string) *gatehouse.Error {
	return &gatehouse.Error{Code: gatehouse.CodeInvalid, Message: "this endpoint does not know that method",
		Detail: "UNSUPPORTED", Err: methodError{allow}}
}

func validUploadID(id string) bool {
	return len(id) <= uploadIDLengthMax && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// printable keeps control characters and broken UTF-8 away from logs, headers
// and databases.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// clip keeps foreign text in messages short.
func clip(s string) string {
	const lengthMax = 120
	if len(s) > lengthMax {
		return s[:lengthMax] + "…"
	}
	return s
}
