package server_test

import (
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/sign"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/server"
	ownsign "github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc/oidctest"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tuf"
)

// sigstoreInfo is what GET /api/v1/sigstore tells.
type sigstoreInfo struct {
	URL, Mirror, Root, SealedWith string
	RootVersion                   int64
	MetadataExpire                time.Time
	Keys                          []struct {
		Kind, SHA256 string
		From, Until  time.Time
	}
}

// inForce are the keys in force by their kinds.
func (i sigstoreInfo) inForce() map[string]string {
	out := map[string]string{}
	for _, k := range i.Keys {
		if k.Until.IsZero() {
			out[k.Kind] = k.SHA256
		}
	}
	return out
}

func (r *running) sigstore() (i sigstoreInfo) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/sigstore", "")), &i); err != nil {
		r.t.Fatal(err)
	}
	return i
}

func withSigstore(more func(*config.Config)) func(*config.Config) {
	return func(c *config.Config) {
		c.Sigstore, c.Hostnames = true, []string{"localhost"}
		if more != nil {
			more(c)
		}
	}
}

func TestSigstoreIsOffByDefault(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, nil)
	for _, path := range []string{"/api/v1/sigstore", "/tuf/timestamp.json", "/timestamp", "/api/v2/signingCert", "/log/checkpoint"} {
		if code, body := r.call("GET", path, ""); code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, body := r.call("GET", "/api/v1/sigstore", ""); !strings.Contains(body, "sigstore: true") {
		t.Errorf("nothing says how to turn it on: %s", body)
	}
	if _, err := os.Stat(filepath.Join(dir, "keys", "sigstore-passphrase")); !os.IsNotExist(err) {
		t.Errorf("there is a passphrase: %v", err)
	}
}

// TestSigstoreKeepsItsKeys: a restart changes nothing, another passphrase opens
// nothing.
func TestSigstoreKeepsItsKeys(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, withSigstore(nil))
	before := r.sigstore()
	if before.URL != "http://localhost" || before.Mirror != "http://localhost/tuf" || before.SealedWith != "a passphrase" || before.RootVersion != 1 || len(before.inForce()) != 7 {
		t.Errorf("%+v", before)
	}
	path := filepath.Join(dir, "keys", "sigstore-passphrase")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the passphrase: %v, %v", info, err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, withSigstore(nil))
	if after := r.sigstore(); len(after.Keys) != len(before.Keys) || after.Root != before.Root || after.inForce()["log"] != before.inForce()["log"] {
		t.Errorf("after a restart %+v\nbefore %+v", after, before)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.AdmissionListen, cfg.Sigstore, cfg.SigstorePassphrase = dir, "127.0.0.1:0", "", true, "quite another passphrase"
	if _, err := server.New(t.Context(), cfg, func(string) string { return "" }, slog.New(slog.DiscardHandler)); gatehouse.CodeOf(err) != gatehouse.CodeDenied || gatehouse.HintOf(err) == "" {
		t.Errorf("with another passphrase: %v", err)
	}
}

// TestSigstoreRotation: who may, what becomes of it, and what is told of it.
func TestSigstoreRotation(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, withSigstore(func(c *config.Config) { c.MetricsListen = "127.0.0.1:0" }))
	first := r.sigstore()
	res, err := http.Post(r.url+"/api/v1/sigstore/rotate", "application/json", strings.NewReader(`{"parts":["ca"]}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stranger: %d", res.StatusCode)
	}
	for _, bad := range []string{`{"parts":[]}`, `{"parts":["roof"]}`, `{}`, `{"part":"ca"}`, `x`, `{"parts":["` + strings.Repeat("x", 8<<10) + `"]}`} {
		if code, body := r.call("POST", "/api/v1/sigstore/rotate", bad); code != http.StatusBadRequest {
			t.Errorf("%.50s: %d %s", bad, code, body)
		}
	}
	r.must("POST", "/api/v1/sigstore/rotate", `{"parts":["ca","tuf"]}`)
	second := r.sigstore()
	for kind, sum := range first.inForce() {
		changed := second.inForce()[kind] != sum
		if want := kind == "ca" || strings.HasPrefix(kind, "tuf-"); changed != want {
			t.Errorf("the %s key has changed: %v, want %v", kind, changed, want)
		}
	}
	if second.RootVersion != 2 {
		t.Errorf("root version %d, want 2", second.RootVersion)
	}
	r.must("POST", "/api/v1/sigstore/rotate", `{"parts":["ct"],"atOnce":true}`)
	for _, k := range r.sigstore().Keys {
		if !k.Until.IsZero() && k.Until.After(time.Now().Add(time.Second)) != (k.Kind != "ct") {
			t.Errorf("the old %s key may sign until %s", k.Kind, k.Until)
		}
	}
	// Clients that have the first root follow.
	trusted, config, err := tuf.Fetch(t.Context(), http.DefaultTransport, r.url+"/tuf", []byte(first.Root))
	if err != nil || strings.Count(string(trusted), `"codeSigning"`) != 0 || !strings.Contains(string(config), "http://localhost/timestamp") {
		t.Errorf("a client with the first root: %v\n%s", err, config)
	}
	var doc struct{ CertificateAuthorities []any }
	if err := json.Unmarshal(trusted, &doc); err != nil || len(doc.CertificateAuthorities) != 2 {
		t.Errorf("%d authorities are trusted, want 2: %v", len(doc.CertificateAuthorities), err)
	}
	if events := r.must("GET", "/api/v1/events?n=1000", ""); strings.Count(events, "sigstore.rotated") != 3 {
		t.Errorf("events do not tell of the first keys and of the change:\n%s", events)
	}
	if code, _ := r.call("POST", "/timestamp", "x"); code != http.StatusBadRequest {
		t.Errorf("a bad timestamp request: %d", code)
	}
	if got := scrape(t, r)[`gatehouse_sigstore_request_duration_seconds_count{result="invalid",service="timestamp"}`]; got != "1" {
		t.Errorf("the refused request is counted %q times", got)
	}
	figures := scrape(t, r)
	for _, name := range []string{"sigstore_log_entries", "sigstore_log_waiting", "sigstore_log_checkpoint_seconds", "sigstore_metadata_not_after_seconds", "sigstore_authority_not_after_seconds"} {
		if figures["gatehouse_"+name] == "" {
			t.Errorf("there is no figure %s", name)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if got := audited(t, dir, "sigstore.rotate"); !slices.Equal(got, []string{"admin ca", "admin tuf-root", "admin tuf-targets", "admin tuf-online", "admin ct"}) {
		t.Errorf("audit records %q", got)
	}
}

// audited lists who did an act to what, by the audit records of a server that has
// ended.
func audited(t *testing.T, dir, action string) (out []string) {
	t.Helper()
	d, err := db.OpenSQLite(t.Context(), filepath.Join(dir, "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = d.Read(t.Context(), func(tx *db.Tx) error {
		records, err := tx.Audit(t.Context(), 0, 1000)
		for _, rec := range records {
			if rec.Action == action {
				out = append(out, rec.Actor+" "+rec.Resource)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSigstoreRenewsMetadata: timestamps come out anew long before they expire,
// and so does the rest when it is time; nobody must look.
func TestSigstoreRenewsMetadata(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	r := startAt(t, dir, withSigstore(nil), slog.New(slog.DiscardHandler), func() time.Time { return now })
	first := r.sigstore()
	files := func() map[string]string {
		out := map[string]string{}
		for _, f := range []string{"timestamp.json", "1.root.json", "2.root.json", "1.targets.json", "2.targets.json", "2.snapshot.json"} {
			if code, body := r.call("GET", "/tuf/"+f, ""); code == 200 {
				out[f] = body
			}
		}
		return out
	}
	before := files()
	for _, step := range []struct {
		after time.Duration
		want  []string // files that are there then
	}{
		{3 * 24 * time.Hour, []string{"1.root.json", "1.targets.json", "timestamp.json"}},
		{40 * 24 * time.Hour, []string{"1.root.json", "1.targets.json", "2.snapshot.json", "timestamp.json"}},
		{300 * 24 * time.Hour, []string{"1.root.json", "1.targets.json", "2.snapshot.json", "2.targets.json", "timestamp.json"}},
		{(4*365 + 30) * 24 * time.Hour, []string{"1.root.json", "1.targets.json", "2.root.json", "2.snapshot.json", "2.targets.json", "timestamp.json"}},
	} {
		now = first.MetadataExpire.Add(-7 * 24 * time.Hour).Add(step.after)
		if err := r.PublishSigstore(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := files()
		var names []string
		for name := range after {
			names = append(names, name)
		}
		slices.Sort(names)
		if !slices.Equal(names, step.want) || after["timestamp.json"] == before["timestamp.json"] {
			t.Errorf("after %s there are %v, want %v", step.after, names, step.want)
		}
		if left := r.sigstore().MetadataExpire.Sub(now); left < 6*24*time.Hour {
			t.Errorf("after %s the timestamp is good for %s", step.after, left)
		}
		before = after
	}
}

// TestSigstoreTellsOfKeys: whoever makes new keys may end before clients were told
// of them; another replica does it before it signs with them.
func TestSigstoreTellsOfKeys(t *testing.T) {
	r := start(t, t.TempDir(), withSigstore(nil))
	first := r.sigstore()
	if err := r.RotateSigstore(t.Context(), "ca"); err != nil {
		t.Fatal(err)
	}
	r.eventually("the new keys", func() bool { return r.sigstore().inForce()["ca"] != first.inForce()["ca"] })
	trusted, _, err := tuf.Fetch(t.Context(), http.DefaultTransport, r.url+"/tuf", []byte(first.Root))
	var doc struct{ CertificateAuthorities []any }
	if err == nil {
		err = json.Unmarshal(trusted, &doc)
	}
	if err != nil || len(doc.CertificateAuthorities) != 2 {
		t.Errorf("clients know %d authorities, want 2: %v", len(doc.CertificateAuthorities), err)
	}
}

// TestKindOfSealer: strangers are not told which account or file has the key.
func TestKindOfSealer(t *testing.T) {
	for name, want := range map[string]string{
		"a passphrase": "a passphrase", "awskms:///arn:aws:kms:eu-west-1:123456789012:key/x": "awskms://", "/etc/keys/cosign.key": "a key", "cosign.key": "a key",
	} {
		if got := server.KindOfSealer(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ownsign.Seal(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "seal.key")
	if err := os.WriteFile(path, pair.Private, 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, t.TempDir(), withSigstore(func(c *config.Config) { c.SigstoreSealKey = path }))
	if got := r.sigstore().SealedWith; got != path {
		t.Errorf("an administrator sees %q", got)
	}
	res, err := http.Get(r.url + "/api/v1/sigstore")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var told sigstoreInfo
	if err := json.NewDecoder(res.Body).Decode(&told); err != nil || told.SealedWith != "a key" || len(told.Keys) != 7 {
		t.Errorf("a stranger sees %q and %d keys: %v", told.SealedWith, len(told.Keys), err)
	}
}

// TestSigstoreMoves: with another host the log begins anew, and the one before
// stays trusted.
func TestSigstoreMoves(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, withSigstore(nil))
	first := r.sigstore()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, withSigstore(func(c *config.Config) { c.ExternalURL = "https://registry.example:8443/" }))
	second := r.sigstore()
	if second.URL != "https://registry.example:8443" || second.inForce()["log"] == first.inForce()["log"] || second.inForce()["ca"] != first.inForce()["ca"] {
		t.Errorf("%+v", second)
	}
	trusted, _, err := tuf.Fetch(t.Context(), http.DefaultTransport, r.url+"/tuf", []byte(first.Root))
	if err != nil || !strings.Contains(string(trusted), `"http://localhost"`) || !strings.Contains(string(trusted), `"https://registry.example:8443"`) {
		t.Errorf("the trusted root lacks a log: %v\n%s", err, trusted)
	}
	r.eventually("the first checkpoint of the new log", func() bool {
		code, body := r.call("GET", "/log/checkpoint", "")
		return code == 200 && strings.HasPrefix(body, "registry.example\n")
	})
}

// TestSigstoreCertifies: by an issuer with TLS of a private authority, with an
// audit record; an issuer in a private network must be allowed.
func TestSigstoreCertifies(t *testing.T) {
	issuer := oidctest.New(t, true)
	dir := t.TempDir()
	authorities := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authorities, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	setting := "username+" + issuer.URL + "?domain=example.org&ca=" + authorities
	certify := func(r *running) error {
		pair, err := sign.NewEphemeralKeypair(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = sign.NewFulcio(&sign.FulcioOptions{BaseURL: r.url}).GetCertificate(t.Context(), pair, &sign.CertificateProviderOptions{IDToken: issuer.Token(t, "alice", nil)})
		return err
	}
	r := start(t, dir, withSigstore(func(c *config.Config) { c.SigstoreIssuers = []string{setting} }))
	request := `{"credentials":{"oidcIdentityToken":"` + issuer.Token(t, "alice", nil) + `"},"certificateSigningRequest":"AAAA"}`
	if code, body := r.call("POST", "/api/v2/signingCert", request); code != http.StatusServiceUnavailable || !strings.Contains(body, "allow-private") || strings.Contains(body, "refused") {
		t.Errorf("an issuer in a private network: %d %s", code, body)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, withSigstore(func(c *config.Config) {
		c.SigstoreIssuers, c.AllowPrivate = []string{setting}, []string{"127.0.0.0/8"}
	}))
	if err := certify(r); err != nil {
		t.Error(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if got := audited(t, dir, "sigstore.certificate"); !slices.Equal(got, []string{"alice!example.org alice!example.org"}) {
		t.Errorf("audit records %q", got)
	}
}

func TestSigstoreSettingsThatCannotWork(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"an issuer that is none":         func(c *config.Config) { c.SigstoreIssuers = []string{"robot+https://x.example"} },
		"an issuer twice":                func(c *config.Config) { c.SigstoreIssuers = []string{"github", "github?audience=x"} },
		"a file that is not there":       func(c *config.Config) { c.SigstoreIssuers = []string{"github?jwks=/nowhere/keys"} },
		"a log key that is none":         func(c *config.Config) { c.SigstoreLogKeys = []string{short(t)} },
		"a log key that is not there":    func(c *config.Config) { c.SigstoreLogKeys = []string{"/nowhere/cosign.pub"} },
		"a short passphrase in a file":   func(c *config.Config) { c.SigstorePassphraseFile = short(t) },
		"an address that nobody can use": func(c *config.Config) { c.Listen, c.Insecure, c.Hostnames = "0.0.0.0:0", true, nil },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			cfg.Data, cfg.Listen, cfg.AdmissionListen = t.TempDir(), "127.0.0.1:0", ""
			withSigstore(change)(&cfg)
			_, err := server.New(t.Context(), cfg, func(string) string { return "" }, slog.New(slog.DiscardHandler))
			if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
				t.Errorf("New() = %v, want invalid", err)
			}
		})
	}
}

func short(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
