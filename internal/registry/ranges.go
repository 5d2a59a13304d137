package registry

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// rangesMax bounds the parts of one Range header. Partial pulls of zstd:chunked
// layers ask for many parts at once; beyond this the whole blob is served, as
// RFC 9110 section 14.2 allows.
const rangesMax = 256

// chunk is the Content-Range of an upload chunk: bytes first to last, both
// included, counted from the beginning of the blob.
type chunk struct{ first, last int64 }

func (c chunk) length() int64 { return c.last - c.first + 1 }

// parseContentRange reads "<first>-<last>" (distribution-spec, "Pushing a blob
// in chunks"). The form of RFC 9110, "bytes 0-9/10", is understood as well.
// Errors: CodeInvalid with detail BLOB_UPLOAD_INVALID.
func parseContentRange(s string) (chunk, error) {
	text := strings.TrimPrefix(s, "bytes ")
	text, total, hasTotal := strings.Cut(text, "/")
	first, last, ok := strings.Cut(text, "-")
	a, errA := parseOffset(first)
	b, errB := parseOffset(last)
	if hasTotal && total != "*" {
		if size, err := parseOffset(total); err != nil || size <= b {
			ok = false
		}
	}
	if !ok || errA != nil || errB != nil || b < a {
		return chunk{}, gatehouse.Errorf(gatehouse.CodeInvalid, "Content-Range %q is not of the form FIRST-LAST", clip(s)).
			WithDetail("BLOB_UPLOAD_INVALID").WithHint("name the first and the last byte of the chunk, for example 0-1023")
	}
	return chunk{a, b}, nil
}

// parseOffset reads digits only (strconv takes a sign) that leave room for +1.
func parseOffset(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(s, 10, 62)
}

// uploadRange is the Range header of a session that holds offset bytes. There is
// no way to say "none"; registries say 0-0.
func uploadRange(offset int64) string { return "0-" + strconv.FormatInt(max(0, offset-1), 10) }

// byteRanges is what a Range header asks of content of a given size.
type byteRanges int

const (
	rangeIgnore        byteRanges = iota // none, unknown unit, malformed, too many: serve the whole
	rangeServe                           // one part at least lies inside
	rangeUnsatisfiable                   // beyond the end, or its end before its beginning
)

// classifyRange judges a Range header (RFC 9110 section 14.1.1), so that only
// well-formed ones reach http.ServeContent, whose errors are plain text.
func classifyRange(header string, size int64) byteRanges {
	list, ok := strings.CutPrefix(header, "bytes=")
	if !ok || strings.Count(list, ",") >= rangesMax {
		return rangeIgnore
	}
	parts, inside := 0, false
	for spec := range strings.SplitSeq(list, ",") {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue
		}
		first, last, ok := strings.Cut(spec, "-")
		if !ok || spec == "-" || !digitsOnly(first) || !digitsOnly(last) {
			return rangeIgnore
		}
		parts++
		switch possible, overlaps := placeRange(first, last, size); {
		case !possible:
			// RFC 9110 section 14.2 leaves it to us; a client whose arithmetic
			// went wrong is better told than sent the whole of a large layer.
			return rangeUnsatisfiable
		case overlaps:
			inside = true
		}
	}
	switch {
	case parts == 0 || size == 0:
		return rangeIgnore
	case !inside:
		return rangeUnsatisfiable
	}
	return rangeServe
}

// digitsOnly reports whether s is a number that a position may be, or nothing.
func digitsOnly(s string) bool {
	_, err := parseOffset(s)
	return s == "" || err == nil
}

// placeRange says whether first-last names bytes of anything (RFC 9110 section
// 14.1.1), and whether it names some of size. An empty first counts from the
// end.
func placeRange(first, last string, size int64) (possible, overlaps bool) {
	a, errA := parseOffset(first)
	b, errB := parseOffset(last)
	switch {
	case errA != nil:
		return true, b > 0
	case errB != nil:
		return true, a < size
	}
	return a <= b, a < size
}

// filterRange drops a Range header that cannot be served, and refuses one that
// lies beyond the end.
func filterRange(w http.ResponseWriter, r *http.Request, size int64) error {
	header := r.Header.Get("Range")
	if header == "" {
		return nil
	}
	if len(r.Header.Values("Range")) > 1 { // no list: which of them is meant?
		r.Header.Del("Range")
		return nil
	}
	if r.Method == http.MethodHead { // RFC 9110 section 14.2: ranges are of GET
		r.Header.Del("Range")
		return nil
	}
	switch classifyRange(header, size) {
	case rangeServe:
		return nil
	case rangeUnsatisfiable:
		if etag := r.Header.Get("If-Range"); etag != "" && etag != w.Header().Get("ETag") {
			break // RFC 9110 section 13.1.5: the range is of something else
		}
		if r.Header.Get("If-None-Match") != "" {
			break // preconditions come first; ServeContent answers
		}
		w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the range names none of the %d bytes that there are", size).WithDetail("RANGE_UNSATISFIABLE")
	}
	r.Header.Del("Range")
	return nil
}
