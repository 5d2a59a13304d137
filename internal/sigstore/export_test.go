package sigstore

import (
	"net/http"
	"time"
)

// Entry reads the body of a request and returns the kind and body of its entry.
func Entry(body []byte) (kind string, entry []byte, err error) {
	c, err := newChecker()
	if err != nil {
		return "", nil, err
	}
	e, err := c.entry(body)
	return e.kind, e.body, err
}

// BodyTime has clients take at most d to send a request, until restore is called.
func BodyTime(d time.Duration) (restore func()) {
	was := bodyTimeMax
	bodyTimeMax = d
	return func() { bodyTimeMax = was }
}

// ConnectionAddr is where the connection of a request came from.
func ConnectionAddr(req *http.Request) string { return connectionAddr(req) }

// Zipped bounds what is compressed for one address, in bytes per second and at
// once, until restore is called.
func Zipped(perSecond, burst int) (restore func()) {
	one, oneBurst := zippedOne, zippedOneBurst
	zippedOne, zippedOneBurst = perSecond, burst
	return func() { zippedOne, zippedOneBurst = one, oneBurst }
}
