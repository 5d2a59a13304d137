package e2e_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/verify/notary"
	"github.com/gatehouse-dev/gatehouse/internal/verify/notary/notarytest"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// notation is the stock program with a signing key of a certificate authority of
// ours, in a server's folder.
type notation struct {
	t      *testing.T
	g      *e2e.Gatehouse
	path   string
	client *fetch.Client
	images int
}

// key gives notation a certificate to sign with.
func (n *notation) key(name string, cert notarytest.Certificate) {
	n.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.Key)
	if err != nil {
		n.t.Fatal(err)
	}
	private := n.g.WriteFile(n.t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	chain := n.g.WriteFile(n.t, name+".crt", []byte(notarytest.PEM(cert.Chain...)))
	keys, err := json.Marshal(map[string]any{"default": name, "keys": []any{map[string]string{"name": name, "keyPath": private, "certPath": chain}}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.g.WriteFile(n.t, "notation/signingkeys.json", keys)
}

func (n *notation) sign(args ...string) {
	n.t.Helper()
	n.g.Run(n.t, n.path, append([]string{"sign", "--insecure-registry"}, args...)...)
}

// image pushes another image.
func (n *notation) image() gatehouse.Ref {
	n.t.Helper()
	crane := tool.Need(n.t, "crane")
	n.images++
	name := fmt.Sprintf("%s/shop/app%d:v1", n.g.Host, n.images)
	layer := n.g.WriteFile(n.t, fmt.Sprint("layer", n.images, ".tar"), oneFile(n.t, name))
	n.g.Run(n.t, crane, "append", "--insecure", "-f", layer, "-t", name)
	digest := strings.TrimSpace(n.g.Run(n.t, crane, "digest", "--insecure", name))
	ref, err := gatehouse.ParseRef(strings.TrimSuffix(name, ":v1") + "@" + digest)
	if err != nil {
		n.t.Fatal(err)
	}
	return ref
}

// envelope reads the one signature of an image from the registry.
func (n *notation) envelope(ref gatehouse.Ref) (mediaType string, body []byte) {
	n.t.Helper()
	reg := n.client.Registry(ref.Registry)
	found, err := reg.Referrers(n.t.Context(), ref.Repo, ref.Digest, notary.ArtifactType, "", 10)
	if err != nil || len(found) != 1 {
		n.t.Fatalf("%v, %v", found, err)
	}
	m, err := reg.Manifest(n.t.Context(), ref.Repo, found[0].Digest)
	if err != nil {
		n.t.Fatal(err)
	}
	var doc struct{ Layers []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		n.t.Fatal(err)
	}
	blob, err := reg.OpenBlob(n.t.Context(), ref.Repo, doc.Layers[0].Digest)
	if err != nil {
		n.t.Fatal(err)
	}
	defer blob.Body.Close()
	if body, err = io.ReadAll(blob.Body); err != nil {
		n.t.Fatal(err)
	}
	return doc.Layers[0].MediaType, body
}

// check verifies the signature of one image as that of another, or itself, and
// returns the code of a refusal.
func (n *notation) check(ref, about gatehouse.Ref, trust gatehouse.Notary, at time.Time) (notary.Signer, string) {
	n.t.Helper()
	mediaType, body := n.envelope(ref)
	m, err := n.client.Resolve(n.t.Context(), about)
	if err != nil {
		n.t.Fatal(err)
	}
	s, err := notary.Verify(body, mediaType, gatehouse.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}, trust, at)
	var refused *notary.Error
	if errors.As(err, &refused) {
		return s, refused.Code
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return s, ""
}

// TestNotationSignatures signs images in a Gatehouse registry with the stock
// notation, in both of its formats, and verifies what it left there.
func TestNotationSignatures(t *testing.T) {
	program := tool.Need(t, "notation")
	g := e2e.ReserveGatehouse(t)
	g.Start(t)
	t.Setenv("XDG_CONFIG_HOME", g.Dir)
	e := egress.New(egress.Config{UserTyped: true})
	t.Cleanup(e.Close)
	n := &notation{t: t, g: g, path: program, client: fetch.New(fetch.Options{
		Transport: e.Transport(), Insecure: []string{g.Host}, Credentials: fetch.Password(g.Host, "admin", e2e.AdminPassword),
	})}
	now := time.Now()
	ca, tsa := notarytest.NewAuthority(t, "root", now), notarytest.NewAuthority(t, "tsa", now)
	trust := gatehouse.Notary{CAs: []string{notarytest.PEM(ca.Cert)}, Identities: []string{"x509.subject: C=US, ST=WA, O=acme"}}
	stranger := notarytest.NewAuthority(t, "stranger", now)
	n.key("acme", ca.Signing(notarytest.NewKey(t), notarytest.Name("acme"), now.Add(-time.Hour), now.Add(time.Hour)))
	clock := httptest.NewServer(tsa.NewClock(now))
	t.Cleanup(clock.Close)
	for _, format := range []string{"jws", "cose"} {
		ref, other := n.image(), n.image()
		n.sign("--signature-format", format, "--expiry", "24h", "--user-metadata", "build=7", ref.String())
		s, code := n.check(ref, ref, trust, time.Now())
		if code != "" || !s.Authentic || !strings.Contains(s.Subject, "O=acme") || s.Annotations["build"] != "7" || s.Expiry.IsZero() {
			t.Errorf("%s: %+v, %s", format, s, code)
		}
		if _, code := n.check(ref, other, trust, time.Now()); code != notary.CodeOtherDigest {
			t.Errorf("%s, for another digest: %q", format, code)
		}
		if _, code := n.check(ref, ref, gatehouse.Notary{CAs: []string{notarytest.PEM(stranger.Cert)}, Identities: trust.Identities}, time.Now()); code != notary.CodeUntrustedCA {
			t.Errorf("%s, another CA: %q", format, code)
		}
		if _, code := n.check(ref, ref, gatehouse.Notary{CAs: trust.CAs, Identities: []string{"x509.subject: C=US, ST=WA, O=globex"}}, time.Now()); code != notary.CodeWrongIdentity {
			t.Errorf("%s, another identity: %q", format, code)
		}
		if _, code := n.check(ref, ref, trust, now.Add(2*time.Hour)); code != notary.CodeExpired {
			t.Errorf("%s, expired certificate: %q", format, code)
		}

		// With a timestamp the signature outlives the certificate, not its own end.
		stamped := n.image()
		n.sign("--signature-format", format, "--expiry", "24h", "--timestamp-url", clock.URL,
			"--timestamp-root-cert", g.WriteFile(t, "tsa.crt", []byte(notarytest.PEM(tsa.Cert))), stamped.String())
		timed := trust
		timed.TSAs = []string{notarytest.PEM(tsa.Cert)}
		if s, code := n.check(stamped, stamped, timed, now.Add(2*time.Hour)); code != "" || s.SignedAt.IsZero() {
			t.Errorf("%s, timestamp: %+v, %q", format, s, code)
		}
		if _, code := n.check(stamped, stamped, timed, now.Add(25*time.Hour)); code != notary.CodeOutdated {
			t.Errorf("%s, expired: %q", format, code)
		}
		if _, code := n.check(ref, ref, timed, time.Now()); code != notary.CodeNoTimestamp {
			t.Errorf("%s, without a timestamp: %q", format, code)
		}
	}
}
