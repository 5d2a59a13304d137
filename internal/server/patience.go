package server

import (
	"net/http"
	"strings"
	"time"
)

const (
	// patience is how long a client may take to take the next answerPiece bytes of
	// an answer. The registry, whose answers are large, keeps a time of its own.
	patience    = 30 * time.Second
	answerPiece = 1 << 20
	// answerSmall is what net/http keeps of an answer by HTTP/2 until it ends or is flushed.
	answerSmall = 4 << 10
)

// impatient ends connections whose clients ask and do not read: without a
// deadline, one that sends request after request would hold its connection for
// ever.
func impatient(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := &impatientWriter{ResponseWriter: w, control: http.NewResponseController(w), shared: r.ProtoMajor >= 2}
		if !p.shared {
			p.renew() // the one of the request before has perhaps passed
		}
		if strings.HasPrefix(r.URL.Path, "/v2/") {
			h.ServeHTTP(w, r)
		} else {
			h.ServeHTTP(p, r)
		}
		p.renew() // for what is still buffered
	})
}

// impatientWriter puts every piece of an answer under a deadline.
type impatientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	shared  bool // HTTP/2: a deadline that passes ends the stream, even if nobody is writing
	written int  // so far
}

// Unwrap serves http.ResponseController.
func (w *impatientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// renew ignores the error: a writer without deadlines (a recorder in a test) has
// no deaf clients either.
func (w *impatientWriter) renew() { _ = w.control.SetWriteDeadline(time.Now().Add(patience)) }

// FlushError serves http.ResponseController.
func (w *impatientWriter) FlushError() error {
	w.renew()
	err := w.control.Flush()
	if w.shared {
		_ = w.control.SetWriteDeadline(time.Time{})
	}
	return err
}

// Write implements io.Writer.
func (w *impatientWriter) Write(p []byte) (n int, err error) {
	// By HTTP/2 a deadline is a message to the goroutine of the connection.
	if w.written = min(w.written, answerSmall) + len(p); w.shared && w.written <= answerSmall {
		return w.ResponseWriter.Write(p)
	}
	for first := true; first || n < len(p); first = false {
		w.renew()
		m, err := w.ResponseWriter.Write(p[n:min(len(p), n+answerPiece)])
		n += m
		if err != nil {
			return n, err
		}
	}
	if w.shared {
		_ = w.control.SetWriteDeadline(time.Time{})
	}
	return n, nil
}
