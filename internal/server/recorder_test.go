package server

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// connection is a response that can do what net/http's can.
type connection struct {
	*httptest.ResponseRecorder
	from io.Reader
}

func (c *connection) ReadFrom(src io.Reader) (int64, error) {
	c.from = src
	return io.Copy(c.ResponseRecorder, src)
}

// TestRecorderKeepsSendfile: a file is handed to the connection's own ReadFrom,
// which is where sendfile happens, and a flush reaches it, too.
func TestRecorderKeepsSendfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn := &connection{ResponseRecorder: httptest.NewRecorder()}
	w := &recorder{ResponseWriter: conn}
	if n, err := io.CopyN(w, f, 50_000); n != 50_000 || err != nil {
		t.Fatal(n, err)
	}
	limited, ok := conn.from.(*io.LimitedReader)
	if !ok || limited.R != f {
		t.Errorf("the connection got a %T", conn.from)
	}
	if w.bytes != 50_000 || w.status != http.StatusOK {
		t.Errorf("noted %d bytes, status %d", w.bytes, w.status)
	}
	if err := http.NewResponseController(w).Flush(); err != nil || !conn.Flushed {
		t.Errorf("flush: %v", err)
	}
}

func TestRecorderNotesTheFinalStatus(t *testing.T) {
	w := &recorder{ResponseWriter: httptest.NewRecorder()}
	w.WriteHeader(http.StatusEarlyHints)
	w.WriteHeader(http.StatusNotFound)
	w.WriteHeader(http.StatusOK)
	if w.status != http.StatusNotFound {
		t.Errorf("noted %d", w.status)
	}
}
