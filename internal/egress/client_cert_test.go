package egress_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/egress"
)

// TestClientCertificate: a server that asks for a certificate gets it, and may have
// another name than the address that it is reached by.
func TestClientCertificate(t *testing.T) {
	var shown int
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown = len(r.TLS.PeerCertificates) }))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	get := func(cfg egress.Config) error {
		t.Helper()
		cfg.UserTyped, cfg.RootCAs = true, pool
		e := egress.New(cfg)
		defer e.Close()
		resp, err := e.Client().Get(s.URL)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(egress.Config{}); err == nil {
		t.Error("let in without a certificate")
	}
	with := egress.Config{ClientCertificates: s.TLS.Certificates, ServerName: "example.com"}
	if err := get(with); err != nil || shown != 1 {
		t.Errorf("%v, %d certificates shown", err, shown)
	}
	with.ServerName = "another.example"
	if err := get(with); err == nil {
		t.Error("a certificate for another name was taken")
	}
}
