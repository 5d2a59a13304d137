package sigstore

import (
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// checkpoint answers GET …/checkpoint.
func (r *Rekor) checkpoint(w http.ResponseWriter, req *http.Request) {
	signed, at, err := r.log.CheckpointAt(req.Context())
	if err != nil {
		r.fail(w, req, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("Last-Modified", at.UTC().Format(http.TimeFormat))
	h.Set("Content-Length", strconv.Itoa(len(signed)))
	_, _ = w.Write(signed)
}

// What is compressed for whoever asks, in bytes per second, and at once. Whoever
// has had that gets the rest as it is: an answer that costs nothing to make.
var (
	zippedOne, zippedOneBurst = 4 << 20, 64 << 20  // for one address
	zippedAll, zippedAllBurst = 16 << 20, 64 << 20 // for all together, per replica
)

func zipBounds() *bounds {
	return &bounds{
		address: limiter{perSecond: float64(zippedOne), burst: float64(zippedOneBurst)},
		all:     limiter{perSecond: float64(zippedAll), burst: float64(zippedAllBurst)},
	}
}

// mayZip reports whether n bytes may be compressed for an address.
func (r *Rekor) mayZip(addr string, n int) bool {
	wait, _ := r.zipped.take(addr, n, time.Now())
	return wait == 0
}

// tile answers GET …/tile/….
func (r *Rekor) tile(w http.ResponseWriter, req *http.Request) {
	path := "tile/" + req.PathValue("path")
	data, err := r.log.Tile(req.Context(), path)
	if err != nil {
		r.fail(w, req, err)
		return
	}
	// A bundle of large entries is held as long as its reader takes.
	give, err := r.held.take(r.addr(req), int64(len(data)))
	if err != nil {
		r.fail(w, req, err)
		return
	}
	defer give()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "public, max-age=31536000, immutable") // a tile never changes
	h.Set("X-Content-Type-Options", "nosniff")
	// Hashes cannot be compressed, entries can (C2SP tlog-tiles, Log entries).
	if strings.HasPrefix(path, "tile/entries/") {
		h.Set("Vary", "Accept-Encoding")
		if acceptsGzip(req) && r.mayZip(r.addr(req), len(data)) {
			h.Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(data)
			_ = z.Close()
			return
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data)
}

// acceptsGzip reads Accept-Encoding (RFC 9110 section 12.5.3) as far as it
// matters: gzip is named, and not with the weight 0.
func acceptsGzip(req *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(req.Header.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			_, q, _ := strings.Cut(weight, "=")
			n, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
			return err != nil || n > 0
		}
	}
	return false
}
