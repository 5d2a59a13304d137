package egress_test

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
)

// TestUnix speaks both protocols to a socket; a server's egress does not.
func TestUnix(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Proto+" "+r.Host+r.URL.Path)
		})}
		srv.Protocols.SetHTTP1(!h2)
		srv.Protocols.SetUnencryptedHTTP2(h2)
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })

		c := &http.Client{Transport: egress.New(egress.Config{UserTyped: true}).Unix(path, h2)}
		res, err := c.Get("http://docker/images/json")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		want := map[bool]string{false: "HTTP/1.1 docker/images/json", true: "HTTP/2.0 docker/images/json"}[h2]
		if err != nil || string(b) != want {
			t.Errorf("h2 %v: %q, %v; want %q", h2, b, err, want)
		}
		c.Transport = egress.New(egress.Config{}).Unix(path, h2)
		_, err = c.Get("http://docker/images/json")
		if gatehouse.CodeOf(err) != gatehouse.CodeDenied {
			t.Errorf("a server reached the socket: %v", err)
		}
	}
}
