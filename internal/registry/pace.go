package registry

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// paceIn is what a client must send, paceOut (of the last piece of a file: up
	// to twice as much) what it must take, within one stall time to be given
	// another one. A total timeout would cut large
	// layers on slow lines; a timeout per read would let one byte now and then
	// hold a connection for ever.
	paceIn  = 64 << 10
	paceOut = 1 << 20
)

// pace puts r's body and w under deadlines that move with progress. r.Body
// itself stays what it is: net/http looks at its type when it answers a request
// whose body nobody has read.
func pace(w http.ResponseWriter, r *http.Request, stall time.Duration) (*pacedWriter, *pacedBody) {
	control := http.NewResponseController(w)
	body := &pacedBody{body: r.Body, control: control, stall: stall}
	if r.Body != nil && r.Body != http.NoBody {
		body.renew() // also binds what net/http reads when nobody else does
	}
	return &pacedWriter{ResponseWriter: w, control: control, stall: stall}, body
}

// pacedBody is a request body that fails when the client does not keep up.
type pacedBody struct {
	body    io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
	renewed time.Time
	moved   int64 // since renewed
	total   int64
	err     error // of the client, so that it is not blamed on the store
}

// renew ignores the error of the deadline: a server that has none (a recorder
// in a test) has no slow clients either.
func (b *pacedBody) renew() {
	b.renewed, b.moved = time.Now(), 0
	b.control.SetReadDeadline(b.renewed.Add(b.stall))
}

// Read implements io.Reader.
func (b *pacedBody) Read(p []byte) (int, error) {
	if b.body == nil {
		return 0, io.EOF
	}
	n, err := b.body.Read(p)
	b.moved += int64(n)
	b.total += int64(n)
	switch {
	case err == io.EOF:
		// From here on the server watches the connection for a client that
		// leaves; a deadline would look like one.
		b.control.SetReadDeadline(time.Time{})
	case err != nil:
		b.err = err
	case b.moved >= paceIn && time.Since(b.renewed) > b.stall/16:
		b.renew()
	}
	return n, err
}

// Close implements io.Closer.
func (b *pacedBody) Close() error {
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}

// blame says why a body could not be stored: err, unless it was the client who
// failed.
func (b *pacedBody) blame(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case b.err == nil:
		return err
	case errors.Is(b.err, os.ErrDeadlineExceeded):
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the client sent nothing for too long").WithDetail("REQUEST_TIMEOUT")
	case errors.As(b.err, &tooLarge):
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the body is larger than %d bytes", tooLarge.Limit).WithDetail("SIZE_INVALID")
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the body ended early: %w", b.err).WithDetail("SIZE_INVALID")
}

// pacedWriter is a response that fails when the client does not take it. It
// hands files on in pieces to the connection's own ReadFrom, so that sendfile
// works.
type pacedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	status  int   // 0 while there is none
	total   int64 // bytes of the body
	sent    bool  // nothing waits in a buffer
}

// WriteHeader implements http.ResponseWriter.
func (w *pacedWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *pacedWriter) renew() { w.control.SetWriteDeadline(time.Now().Add(w.stall)) }

// Write implements io.Writer.
func (w *pacedWriter) Write(p []byte) (n int, err error) {
	w.sent = false
	if w.status == 0 {
		w.status = http.StatusOK
	}
	for first := true; first || n < len(p); first = false {
		w.renew()
		m, err := w.ResponseWriter.Write(p[n:min(len(p), n+paceOut)])
		n += m
		w.total += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// smallFile is up to where one buffered write beats sendfile.
const smallFile = 16 << 10

// ReadFrom implements io.ReaderFrom.
func (w *pacedWriter) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	to, fast := w.ResponseWriter.(io.ReaderFrom)
	if !ok || !fast || limited.N <= smallFile {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	var total int64
	for limited.N > 0 {
		w.renew()
		size := limited.N
		if size >= 2*paceOut { // a short rest goes with the last piece
			size = paceOut
		}
		piece := &io.LimitedReader{R: limited.R, N: size}
		n, err := to.ReadFrom(piece)
		w.sent = true // net/http flushes first what came before
		total, limited.N = total+n, limited.N-n
		w.total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
	return total, nil
}

// finish sends what is buffered while the deadline still holds, and takes the
// deadline off the connection, which other handlers may use next.
func (w *pacedWriter) finish() {
	if !w.sent {
		w.renew()
		w.control.Flush()
	}
	w.control.SetWriteDeadline(time.Time{})
}

// whole answers with the size bytes that body has from where it stands. It is
// what http.ServeContent does for a request without conditions, but for the calls
// that find out the size. An error has been answered as well as it can be: the
// status is out, and the missing bytes close the connection.
func (w *pacedWriter) whole(body io.Reader, size int64) error {
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	w.WriteHeader(http.StatusOK)
	_, _ = w.ReadFrom(&io.LimitedReader{R: body, N: size})
	return nil
}

// json answers with a document of known length.
func (w *pacedWriter) json(status int, mediaType string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// empty answers without a body.
func (w *pacedWriter) empty(status int) {
	if status != http.StatusNoContent {
		w.Header().Set("Content-Length", "0")
	}
	w.WriteHeader(status)
}
