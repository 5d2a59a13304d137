// Package outside reads what policies refer to and do not hold: documents on servers,
// trusted roots in TUF repositories, public keys in key services. In goes the
// reference, out come bytes that have been compared with what the policy says of
// them. [Kept] remembers them, so that a server goes on deciding while their source
// does not answer.
package outside

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tuf"
)

// Limits.
const (
	remoteSizeMax = 1 << 20 // bytes of a document on a server: a policy has no more
	fetchTimeMax  = 5 * time.Second
	redirectsMax  = 5
)

// Reader reads anew each time. Its zero value reaches nothing. It is safe for
// concurrent use.
type Reader struct {
	// Transport opens connections; nil: there are none.
	Transport http.RoundTripper
	// Keys says which key services may be asked.
	Keys keyref.Options
	// Dir keeps metadata of TUF repositories, so that nobody can offer older ones
	// later; empty: nothing is kept.
	Dir string
}

// Outside returns what policies can refer to without a cluster.
func (r Reader) Outside() cip.Outside {
	return cip.Outside{Key: r.Key, Remote: r.Remote, Repository: r.Repository}
}

// Key returns the public keys of a key service in PEM. CodeDenied: this service may
// not be asked. CodeUnavailable: it does not answer.
func (r Reader) Key(uri string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), fetchTimeMax)
	defer stop()
	if !strings.Contains(uri, "://") || strings.HasPrefix(uri, "env://") || strings.HasPrefix(uri, "https://") {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%q names no key service", clip(uri)).
			WithHint("write awskms://…, gcpkms://…, azurekms://…, hashivault://… or the scheme of another plugin")
	}
	b, err := keyref.Public(ctx, uri, r.Keys)
	if gatehouse.CodeOf(err) == gatehouse.CodeDenied {
		scheme, _, _ := strings.Cut(uri, "://")
		return "", gatehouse.Errorf(gatehouse.CodeDenied, "key service %s may not be asked for policies", clip(scheme)).
			WithHint("the setting policy-key-services lists those that may; or put the public key into key.data")
	}
	return string(b), err
}

// Remote returns the document at an https address whose sha256 is sum. CodeDenied: it
// is another document. CodeTooLarge, CodeUnavailable.
func (r Reader) Remote(url, sum string) ([]byte, error) {
	if r.Transport == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "nothing is fetched here")
	}
	ctx, stop := context.WithTimeout(context.Background(), fetchTimeMax)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil || req.URL.Scheme != "https" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no https address", clip(url))
	}
	client := http.Client{Transport: r.Transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Scheme != "https" || len(via) > redirectsMax {
			return errors.New("it leads away from https, or on and on")
		}
		return nil
	}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s answered %s", clip(req.URL.Host), clip(resp.Status)).
			WithHint("the address has to answer 200 without a login")
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, remoteSizeMax+1))
	switch {
	case err != nil:
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the answer of %s broke off: %w", clip(req.URL.Host), err)
	case len(b) > remoteSizeMax:
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the document at %s has more than %d bytes", clip(url), remoteSizeMax)
	}
	if got := sumOf(b); got != sum {
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "failed to check sha256sum from policy remote: %s got %s", sum, got).
			WithHint("the document has changed: read it, and write its sha256sum into the policy if it is right")
	}
	return b, nil
}

// unreachable keeps what egress says of an address that it refuses.
func unreachable(err error) error {
	var own *gatehouse.Error
	if errors.As(err, &own) {
		return own
	}
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "it cannot be reached: %w", err)
}

// Repository returns the trusted root of a TUF repository. Errors: those of
// [tuf.Client.Target]; CodeInvalid for an archive that is none, CodeTooLarge.
func (r Reader) Repository(t cip.TUF) ([]byte, error) {
	b, _, err := r.Vouched(t)
	return b, err
}

// Vouched is Repository, with the time until which the repository vouches for it.
func (r Reader) Vouched(t cip.TUF) ([]byte, time.Time, error) {
	client := tuf.Client{Mirror: t.Mirror, Root: t.Root, Transport: r.Transport, Targets: t.Targets}
	switch {
	case len(t.Archive) > 0:
		files, err := unpack(bytes.NewReader(t.Archive))
		if err != nil {
			return nil, time.Time{}, err
		}
		client.Mirror, client.Transport = "https://archive.invalid", files
	case r.Transport == nil:
		return nil, time.Time{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "nothing is fetched here")
	case r.Dir != "":
		// Of one mirror and one root: who names another root begins anew.
		client.Dir = filepath.Join(r.Dir, "tuf-"+sumOf([]byte(t.Mirror + "\x00" + string(t.Root)))[:32])
	}
	ctx, stop := context.WithTimeout(context.Background(), 2*fetchTimeMax)
	defer stop()
	return client.Target(ctx, t.Target)
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func clip(s string) string {
	const max = 200
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
