package s3test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Op is what a request does.
type Op string

// Operations of S3 that a store uses.
const (
	PutObject    Op = "PutObject"   // under blobs/
	PutTail      Op = "PutTail"     // under tails/
	PutMarker    Op = "PutMarker"   // gatehouse-store
	Create       Op = "Create"      // CreateMultipartUpload
	PutPart      Op = "PutPart"     // UploadPart
	CopyPart     Op = "CopyPart"    // UploadPartCopy
	Complete     Op = "Complete"    // CompleteMultipartUpload
	Abort        Op = "Abort"       // AbortMultipartUpload
	Get          Op = "Get"         // GetObject
	Head         Op = "Head"        // HeadObject
	DeleteOne    Op = "DeleteOne"   // DeleteObject
	DeleteMany   Op = "DeleteMany"  // DeleteObjects
	ListObjects  Op = "ListObjects" // ListObjectsV2
	ListUploads  Op = "ListUploads" // ListMultipartUploads
	ListParts    Op = "ListParts"   // ListParts
	otherRequest Op = "other"
)

// Fault is what happens to a request.
type Fault int

// Faults.
const (
	None    Fault = iota
	Busy          // 503 SlowDown; the server never sees it
	Full          // 507; the server never sees it
	Missing       // 501 NotImplemented; the server never sees it
	Cut           // the connection breaks in the middle of the request's body
	Lost          // the server does it, but the answer is lost
	Half          // the connection breaks in the middle of the answer's body
	Corrupt       // a byte of the request's body is another
	Hang          // no answer, until the client gives up
	Deny          // 403
)

// Proxy stands in front of the server and breaks what it is told to.
type Proxy struct {
	URL string

	mu    sync.Mutex
	calls map[Op]int
	fault func(op Op, call int) Fault
}

// NewProxy starts a proxy in front of b's server.
func NewProxy(t testing.TB, b *Bucket) *Proxy {
	t.Helper()
	target, err := url.Parse(b.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{calls: map[Op]int{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		Transport: transport, ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(rp, w, r) }))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		transport.CloseIdleConnections()
	})
	p.URL = srv.URL
	return p
}

// Break lets fault decide from now on, by the operation and how often it was
// called since, from 1. nil breaks nothing.
func (p *Proxy) Break(fault func(op Op, call int) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.calls)
	p.fault = fault
}

// Once breaks the call-th call of op.
func Once(op Op, call int, fault Fault) func(Op, int) Fault {
	return func(o Op, n int) Fault {
		if o == op && n == call {
			return fault
		}
		return None
	}
}

// Always breaks every call of op.
func Always(op Op, fault Fault) func(Op, int) Fault {
	return func(o Op, _ int) Fault {
		if o == op {
			return fault
		}
		return None
	}
}

// Calls tells how often op was called since the last Break.
func (p *Proxy) Calls(op Op) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[op]
}

// Total is the number of all calls since the last Break.
func (p *Proxy) Total() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		n += c
	}
	return n
}

func (p *Proxy) decide(op Op) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[op]++
	if p.fault == nil {
		return None
	}
	return p.fault(op, p.calls[op])
}

func (p *Proxy) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	switch f := p.decide(opOf(r)); f {
	case Busy:
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
	case Full:
		refuse(w, http.StatusInsufficientStorage, "XMinioStorageFull")
	case Missing:
		refuse(w, http.StatusNotImplemented, "NotImplemented")
	case Deny:
		refuse(w, http.StatusForbidden, "AccessDenied")
	case Cut:
		io.CopyN(io.Discard, r.Body, max(1, r.ContentLength/2))
		panic(http.ErrAbortHandler)
	case Lost:
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		panic(http.ErrAbortHandler)
	case Half:
		next.ServeHTTP(&halfWriter{ResponseWriter: w}, r)
	case Corrupt:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if len(body) > 0 {
			body[len(body)/2] ^= 1
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	case Hang:
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	default:
		next.ServeHTTP(w, r)
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>injected fault</Message></Error>", code)
}

// halfWriter passes half of the body and then breaks the connection.
type halfWriter struct {
	http.ResponseWriter
	left int64
}

func (h *halfWriter) WriteHeader(status int) {
	var length int64
	fmt.Sscan(h.Header().Get("Content-Length"), &length)
	h.left = length / 2
	h.ResponseWriter.WriteHeader(status)
}

func (h *halfWriter) Write(b []byte) (int, error) {
	if int64(len(b)) >= h.left {
		h.ResponseWriter.Write(b[:h.left])
		h.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	h.left -= int64(len(b))
	return h.ResponseWriter.Write(b)
}

// opOf tells what a request in path style does.
func opOf(r *http.Request) Op {
	_, name, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	folder := func(blobs, tails, other Op) Op {
		switch {
		case strings.Contains(name, "blobs/"):
			return blobs
		case strings.Contains(name, "tails/"):
			return tails
		}
		return other
	}
	switch r.Method {
	case http.MethodPut:
		switch {
		case q.Has("partNumber") && r.Header.Get("X-Amz-Copy-Source") != "":
			return CopyPart
		case q.Has("partNumber"):
			return PutPart
		}
		return folder(PutObject, PutTail, PutMarker)
	case http.MethodPost:
		switch {
		case q.Has("uploads"):
			return Create
		case q.Has("uploadId"):
			return Complete
		case q.Has("delete"):
			return DeleteMany
		}
	case http.MethodDelete:
		if q.Has("uploadId") {
			return Abort
		}
		return DeleteOne
	case http.MethodHead:
		return Head
	case http.MethodGet:
		switch {
		case q.Has("uploads"):
			return ListUploads
		case q.Has("uploadId"):
			return ListParts
		case q.Get("list-type") == "2":
			return ListObjects
		case name != "":
			return Get
		}
	}
	return otherRequest
}
