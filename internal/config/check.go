package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

func invalid(key, format string, args ...any) *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %s", key, fmt.Sprintf(format, args...))
}

// Check finds settings that cannot work or are not safe. It opens nothing.
// Errors: CodeInvalid; none of them shows a secret.
func (c Config) Check() error {
	for _, check := range []func() error{c.checkData, c.checkTLS, c.checkWords, c.checkAddresses, c.checkReach, c.checkAdapter, c.checkOpinion, c.checkSigstore, c.checkCluster, c.checkFacts} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) checkData() error {
	if c.Data == "" {
		return invalid("data", "no directory is named")
	}
	if c.Database != "" && c.DatabaseFile != "" {
		return invalid("database", "database and database-file are both set").WithHint("set one of them")
	}
	if err := checkDatabase(c.Database); err != nil {
		return err
	}
	if c.Storage == "" {
		return nil
	}
	u, err := url.Parse(c.Storage)
	if err != nil || u.Scheme != "s3" || u.Host == "" {
		return invalid("storage", "the value is not s3://BUCKET/PREFIX?endpoint=…&region=…")
	}
	if u.User != nil {
		return invalid("storage", "the URL holds credentials").WithHint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")
	}
	return nil
}

// checkDatabase never repeats what it was given: it may hold a password.
func checkDatabase(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return invalid("database", "the value is not a postgres:// URL").
			WithHint("write postgres://USER:PASSWORD@HOST:PORT/NAME, with %%XX for special characters in the password")
	}
	return nil
}

func (c Config) checkTLS() error {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return invalid("tls-cert", "a certificate and its key go together").WithHint("set both tls-cert and tls-key")
	}
	if (c.AdmissionTLSCert == "") != (c.AdmissionTLSKey == "") {
		return invalid("admission-tls-cert", "a certificate and its key go together").WithHint("set both admission-tls-cert and admission-tls-key")
	}
	return nil
}

func (c Config) checkWords() error {
	for _, w := range []struct {
		key, value string
		words      []string
	}{
		{"no-match", c.NoMatch, []string{"deny", "warn", "allow"}},
		{"admission-mutate", c.AdmissionMutate, []string{"pods", "all", "off"}},
		{"running-reports", c.RunningReports, []string{"auto", "off"}},
		{"log-level", c.LogLevel, []string{"debug", "info", "warn", "error"}},
		{"log-format", c.LogFormat, []string{"text", "json"}},
		{"access-log", c.AccessLog, []string{"all", "errors", "off"}},
		{"webhook-failure-policy", c.WebhookFailurePolicy, []string{"fail", "ignore"}},
	} {
		if !slices.Contains(w.words, w.value) {
			return invalid(w.key, "%q is none of %s", w.value, strings.Join(w.words, ", "))
		}
	}
	if c.Clamd != "" && !strings.HasPrefix(c.Clamd, "tcp://") && !strings.HasPrefix(c.Clamd, "unix:/") {
		return invalid("clamd", "%q is neither tcp://HOST:PORT nor unix:PATH", c.Clamd)
	}
	if c.AdmissionMaxStale < 0 {
		return invalid("admission-max-stale", "%s is in the past", c.AdmissionMaxStale)
	}
	if c.TraceRatio < 0 || c.TraceRatio > 1 {
		return invalid("trace-ratio", "%g is not between 0 and 1", c.TraceRatio)
	}
	return nil
}

func (c Config) checkAddresses() error {
	for _, a := range []struct {
		key, addr string
		optional  bool
	}{
		{"listen", c.Listen, false},
		{"admission-listen", c.AdmissionListen, true},
		{"metrics-listen", c.MetricsListen, true},
	} {
		if a.addr == "" && a.optional {
			continue
		}
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			return invalid(a.key, "%q is not host:port", a.addr)
		}
	}
	if c.TLSCert == "" && !c.Insecure && !Loopback(c.Listen) {
		return invalid("listen", "%s is reachable from other machines and there is no TLS", c.Listen).
			WithHint("set --tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure if something in front does TLS")
	}
	return nil
}

// feedIntervalMin is the shortest interval at which feeds are looked at.
const feedIntervalMin = time.Minute

// checkReach checks where the server itself may connect to.
func (c Config) checkReach() error {
	if _, err := c.PrivateRanges(); err != nil {
		return err
	}
	for _, r := range c.AllowRegistries {
		if r == "" || strings.ContainsAny(r, "/ ") || strings.Contains(strings.TrimPrefix(r, "*."), "*") {
			return invalid("allow-registries", "%q is not the name of a registry", r).WithHint("write HOST, HOST:PORT or *.DOMAIN")
		}
	}
	if len(c.Feeds) > 0 && c.FeedInterval < feedIntervalMin {
		return invalid("feed-interval", "%s is shorter than %s", FormatDuration(c.FeedInterval), FormatDuration(feedIntervalMin)).
			WithHint("feeds change every few hours, and their publishers ask for patience")
	}
	if c.TraceEndpoint == "" {
		return nil
	}
	u, err := url.Parse(c.TraceEndpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return invalid("trace-endpoint", "the value is not an http:// or https:// URL").WithHint("OTLP over HTTP usually is at port 4318")
	}
	if u.User != nil {
		return invalid("trace-endpoint", "the URL holds credentials").WithHint("set OTEL_EXPORTER_OTLP_HEADERS instead")
	}
	return nil
}

// checkFacts checks how another server is reached.
func (c Config) checkFacts() error {
	if c.FactsServer == "" {
		if c.FactsKey != "" || c.FactsCA != "" {
			return invalid("facts-server", "facts-key or facts-ca is set, but no server is named")
		}
		return nil
	}
	u, err := url.Parse(c.FactsServer)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return invalid("facts-server", "%q is not https://HOST or https://HOST:PORT", c.FactsServer).WithHint("name and password belong into registry-login-file")
	case u.Scheme == "http" && !c.Insecure && !Loopback(net.JoinHostPort(u.Hostname(), "80")):
		return invalid("facts-server", "a password would travel in the clear").WithHint("write https://, or say --insecure if something in between does TLS")
	case c.FactsKey == "":
		return invalid("facts-key", "missing: without the server's key nothing says whom to believe").
			WithHint("save the answer of GET %s/api/v1/facts/key, over a way that you trust", strings.TrimSuffix(c.FactsServer, "/"))
	}
	return nil
}

// PrivateRanges is allow-private, parsed.
func (c Config) PrivateRanges() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range c.AllowPrivate {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, invalid("allow-private", "%q is not an address range", s).WithHint("give address ranges, for example 10.1.0.0/16")
		}
		out = append(out, p)
	}
	return out, nil
}

// Loopback reports whether addr (host:port) can be reached from this machine
// only. A name other than localhost is not asked: it counts as reachable.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
