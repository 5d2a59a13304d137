package fetch_test

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

type noNames struct{}

func (noNames) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "registry.example", Server: "10.9.8.7:53", IsNotFound: true}}
}

// TestNameServersStayPrivate: the answer to a Pod that names a registry must
// not tell which name servers the cluster has.
func TestNameServersStayPrivate(t *testing.T) {
	c := fetch.New(fetch.Options{Transport: noNames{}})
	_, err := c.Resolve(t.Context(), gatehouse.Ref{Registry: "registry.example", Repo: "a", Tag: "1"})
	var dns *net.DNSError
	if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || !errors.As(err, &dns) || !dns.IsNotFound {
		t.Fatalf("%v", err)
	}
	if s := err.Error(); strings.Contains(s, "10.9.8.7") || !strings.Contains(s, "no such host") {
		t.Error(s)
	}
}
