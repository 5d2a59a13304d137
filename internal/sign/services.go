package sign

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	prototrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/gatehouse-dev/gatehouse"
)

// Versions of Rekor's API.
const (
	RekorV1 = 1 // answers with a signed promise; what the tag scheme can carry
	RekorV2 = 2 // answers with a proof of inclusion; only bundles can carry it
)

// servicesMax bounds the logs and the timestamp authorities that one signature
// asks for.
const servicesMax = 8

// Services are what a signature gets beside what a key gives: a certificate that
// says who signs, entries of transparency logs and signed timestamps. The zero
// value is none of it.
type Services struct {
	Fulcio     string   // URL of the certificate authority; needed to sign without a key
	Logs       []Log    // that show the signature, all of them
	Timestamps []string // URLs of RFC 3161 timestamp authorities, all of them
}

// Log is one transparency log.
type Log struct {
	URL     string
	Version int // RekorV1 or RekorV2
}

// ParseServices reads a signing config (media type
// application/vnd.dev.sigstore.signingconfig.v0.2+json) and chooses the services
// that it offers at now, as its selectors say. Errors: CodeInvalid.
func ParseServices(signingConfig []byte, now time.Time) (Services, error) {
	invalid := func(err error) (Services, error) {
		return Services{}, gatehouse.Errorf(gatehouse.CodeInvalid, "signing config: %w", err)
	}
	config, err := root.NewSigningConfigFromJSON(signingConfig)
	if err != nil {
		return invalid(err)
	}
	var s Services
	if all := config.FulcioCertificateAuthorityURLs(); len(all) > 0 {
		one, err := root.SelectService(all, []uint32{1}, now)
		if err != nil {
			return invalid(err)
		}
		s.Fulcio = one.URL
	}
	if all := config.RekorLogURLs(); len(all) > 0 {
		chosen, err := root.SelectServices(all, selector(config.RekorLogURLsConfig()), []uint32{RekorV1, RekorV2}, now)
		if err != nil {
			return invalid(err)
		}
		for _, c := range chosen {
			s.Logs = append(s.Logs, Log{c.URL, int(c.MajorAPIVersion)})
		}
	}
	if all := config.TimestampAuthorityURLs(); len(all) > 0 {
		chosen, err := root.SelectServices(all, selector(config.TimestampAuthorityURLsConfig()), []uint32{1}, now)
		if err != nil {
			return invalid(err)
		}
		for _, c := range chosen {
			s.Timestamps = append(s.Timestamps, c.URL)
		}
	}
	return s, s.Check()
}

// selector takes a missing word for "any one".
func selector(c root.ServiceConfiguration) root.ServiceConfiguration {
	if c.Selector == prototrust.ServiceSelector_SERVICE_SELECTOR_UNDEFINED {
		c.Selector = prototrust.ServiceSelector_ANY
	}
	return c
}

// Check reports what in s cannot be. Errors: CodeInvalid, CodeTooMany.
func (s Services) Check() error {
	if len(s.Logs) > servicesMax || len(s.Timestamps) > servicesMax {
		return gatehouse.Errorf(gatehouse.CodeTooMany, "%d logs and %d timestamp authorities for one signature, %d of each at most", len(s.Logs), len(s.Timestamps), servicesMax)
	}
	var urls []string
	if s.Fulcio != "" {
		urls = append(urls, s.Fulcio)
	}
	for _, l := range s.Logs {
		if l.Version != RekorV1 && l.Version != RekorV2 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "log %s speaks version %d of Rekor's API; 1 and 2 are known", l.URL, l.Version)
		}
		urls = append(urls, l.URL)
	}
	for _, text := range append(urls, s.Timestamps...) {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%q is not the URL of a service", text).WithHint("give it as https://HOST")
		}
	}
	return nil
}

// ForLegacy is s without what the tag scheme cannot carry: entries of Rekor v2.
func (s Services) ForLegacy() Services {
	var logs []Log
	for _, l := range s.Logs {
		if l.Version == RekorV1 {
			logs = append(logs, l)
		}
	}
	s.Logs = logs
	return s
}

// trim makes URLs of bases, which go on with a path.
func trim(base string) string { return strings.TrimRight(base, "/") }

// reach is how services are spoken to.
type reach struct {
	transport http.RoundTripper
	timeout   time.Duration
}

// serviceTimeout is how long one request to a service may take.
const serviceTimeout = 30 * time.Second

func (r reach) client() *http.Client {
	return &http.Client{Transport: r.transport, Timeout: r.timeout}
}
