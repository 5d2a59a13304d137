package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// logKey is a public key of a log: with its name, or one that has none.
type logKey struct {
	named  note.Verifier
	pub    ed25519.PublicKey
	origin string    // of pub; empty: whatever the checkpoint says
	until  time.Time // when the key ended, by the trust root; zero: it is in force
}

// verifier returns the verifier of a checkpoint. The name of a log is a part of
// what its key id is made of, so that the checkpoint of one log cannot pass for
// that of another one with the same key. CodeDenied: the key is no longer in force.
func (k logKey) verifier(signed []byte) (note.Verifier, error) {
	if k.named != nil {
		return k.named, nil
	}
	if !k.until.IsZero() && time.Since(k.until) > staleAfter {
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "a key of the log ended at %s, and whoever runs the log has another one", k.until.UTC().Format(time.RFC3339))
	}
	origin := k.origin
	if origin == "" {
		origin, _, _ = strings.Cut(string(signed), "\n")
	}
	return tlog.NewVerifier(origin, k.pub)
}

// logKeyFileMax bounds a file with a key, rootFileMax one with a trust root, in
// bytes.
const (
	logKeyFileMax = 64 << 10
	rootFileMax   = 4 << 20
)

// logKeys are the keys that the flags name.
func (a *app) logKeys(q sigstoreQuery) (keys []logKey, err error) {
	switch {
	case q.trustedRoot != "":
		if keys, err = trustedLogs(q.trustedRoot); err == nil && q.directory() {
			for i := range keys { // a copy is as old as it is
				keys[i].until = time.Time{}
			}
		}
		return keys, err
	case len(q.keys) == 0:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "nothing says which key the log has").
			WithHint("--log-key names it, or --trusted-root a file that has it: a log that brings its own key along proves nothing")
	}
	for _, named := range q.keys {
		key, err := readLogKey(named, hostOf(q))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// readLogKey reads a key of --log-key. host is the name of the log of one that has
// none.
func readLogKey(named, host string) (logKey, error) {
	text := named
	if strings.Count(text, "+") < 2 {
		b, err := readBounded(text, logKeyFileMax)
		if err != nil {
			return logKey{}, err
		}
		text = string(b)
	}
	if block, _ := pem.Decode([]byte(text)); block != nil {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		pub, ok := key.(ed25519.PublicKey)
		if err != nil || !ok {
			return logKey{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds no Ed25519 public key", named).WithHint("a log signs its checkpoints with Ed25519")
		}
		return logKey{pub: pub, origin: host}, nil
	}
	v, err := tlog.ParseVerifier(text)
	return logKey{named: v}, err
}

// directory reports whether the log is one that was exported.
func (q sigstoreQuery) directory() bool { return q.log != "" && !strings.Contains(q.log, "://") }

// hostOf is the name of the log at a URL; empty for a directory.
func hostOf(q sigstoreQuery) string {
	at := q.log
	if at == "" {
		at = q.server
	}
	if u, err := url.Parse(at); err == nil && strings.Contains(at, "://") {
		return u.Hostname()
	}
	return ""
}

// trustedLogs reads the logs of a Sigstore trust root that may sign checkpoints, or
// might once.
func trustedLogs(path string) ([]logKey, error) {
	b, err := readBounded(path, rootFileMax)
	if err != nil {
		return nil, err
	}
	var doc struct {
		TLogs []struct {
			BaseURL   string `json:"baseUrl"`
			PublicKey struct {
				RawBytes   []byte `json:"rawBytes"`
				KeyDetails string `json:"keyDetails"`
				ValidFor   struct {
					End time.Time `json:"end"`
				} `json:"validFor"`
			} `json:"publicKey"`
		} `json:"tlogs"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is no trusted_root.json: %w", path, err)
	}
	var out []logKey
	for _, l := range doc.TLogs {
		key, err := x509.ParsePKIXPublicKey(l.PublicKey.RawBytes)
		pub, ok := key.(ed25519.PublicKey)
		u, errURL := url.Parse(l.BaseURL)
		if err != nil || !ok || errURL != nil || u.Hostname() == "" {
			continue // a log of Rekor v1, which has no tiles
		}
		out = append(out, logKey{pub: pub, origin: u.Hostname(), until: l.PublicKey.ValidFor.End})
	}
	if len(out) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s has no log with an Ed25519 key", path).WithHint("is it the trust root of this Sigstore?")
	}
	return out, nil
}

// readBounded reads a small file.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read %s: %w", path, err).WithHint("check the path")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read %s: %w", path, err)
	}
	if int64(len(b)) > most {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", path, most)
	}
	return b, nil
}
