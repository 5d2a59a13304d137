package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// guard is how a peer knows its clients.
type guard string

const (
	// byToken is distribution's token authentication: it verifies an RS256
	// signature per request, which is what it does in production, and the
	// cheapest of the algorithms that issuers use.
	byToken guard = "token"
	// byPassword is its htpasswd authentication: one bcrypt per request.
	byPassword guard = "htpasswd"
	// byAnything is its "silly" authentication, which looks whether there is an
	// Authorization header and no further.
	byAnything guard = "silly"
)

// peerConfig is the configuration of the CNCF registry: a directory on the same
// disk, its descriptor cache in memory, nothing logged but errors, no
// background work.
const peerConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: %[1]q}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: %[2]q, secret: bench}
auth:
  %[3]s
`

// peer is a running registry of the CNCF's distribution project.
type peer struct {
	target
	data string
	cmd  *exec.Cmd
}

// startPeer starts the registry on the directory data.
func startPeer(ctx context.Context, b *bench, data string, how guard) (*peer, error) {
	t, err := tool.Lookup("registry")
	if err != nil {
		return nil, err
	}
	binary, err := t.Ensure(ctx, b.root, b.log)
	if err != nil {
		return nil, err
	}
	version, err := t.Version(b.root)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p := &peer{target: target{name: "registry " + version, addr: addr}, data: data}
	section, err := p.guarded(how)
	if err != nil {
		return nil, err
	}
	config := data + ".yml"
	if err := os.WriteFile(config, fmt.Appendf(nil, peerConfig, data, addr, section), 0o600); err != nil {
		return nil, err
	}
	output, err := os.Create(data + ".log")
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p.cmd = exec.CommandContext(ctx, binary, "serve", config)
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.pid = p.cmd.Process.Pid
	if err := p.answers(ctx); err != nil {
		said, _ := os.ReadFile(data + ".log")
		return nil, errors.Join(fmt.Errorf("%w: %s", err, said[max(0, len(said)-500):]), p.stop())
	}
	return p, nil
}

// guarded prepares the authentication and returns its section of the
// configuration.
func (p *peer) guarded(how guard) (section string, err error) {
	switch how {
	case byPassword:
		hash, err := bcrypt.GenerateFromPassword([]byte(adminPassword), bcrypt.DefaultCost)
		if err != nil {
			return "", err
		}
		p.authorize = basic
		file := p.data + ".htpasswd"
		return fmt.Sprintf("htpasswd: {realm: bench, path: %q}", file), os.WriteFile(file, fmt.Appendf(nil, "admin:%s\n", hash), 0o600)
	case byAnything:
		p.authorize = basic
		return "silly: {realm: bench, service: bench}", nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	p.authorize = issuer(key)
	file := p.data + ".jwks"
	return fmt.Sprintf("token: {realm: \"http://127.0.0.1/token\", service: bench, issuer: bench, jwks: %q}", file),
		os.WriteFile(file, jwks(&key.PublicKey), 0o600)
}

// jwks is the key set that the registry verifies tokens with (RFC 7517).
func jwks(key *rsa.PublicKey) []byte {
	enc := base64.RawURLEncoding.EncodeToString
	return fmt.Appendf(nil, `{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"bench","n":%q,"e":%q}]}`,
		enc(key.N.Bytes()), enc(big.NewInt(int64(key.E)).Bytes()))
}

// issuer makes tokens as an authorization server does (distribution's
// token specification): one for each repository.
func issuer(key *rsa.PrivateKey) func(repo string) (string, error) {
	return func(repo string) (string, error) {
		now := time.Now()
		claims, err := json.Marshal(map[string]any{
			"iss": "bench", "sub": "bench", "aud": "bench", "jti": rand.Text(),
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
			"access": []any{map[string]any{"type": "repository", "name": repo, "actions": []string{"pull", "push", "delete"}}},
		})
		if err != nil {
			return "", err
		}
		enc := base64.RawURLEncoding.EncodeToString
		text := enc([]byte(`{"alg":"RS256","typ":"JWT","kid":"bench"}`)) + "." + enc(claims)
		sum := sha256.Sum256([]byte(text))
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		return "Bearer " + text + "." + enc(sig), err
	}
}

// basic is the Authorization of our own server, and of a peer with passwords.
func basic(string) (string, error) {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+adminPassword)), nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// answers waits until a connection is taken.
func (t *target) answers(ctx context.Context) error {
	for start := time.Now(); time.Since(start) < startWait; {
		conn, err := net.Dial("tcp", t.addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not listen after %s", t.name, startWait)
}

// stop ends the registry, which has nothing to save.
func (p *peer) stop() error {
	_ = p.cmd.Process.Kill() // it may have ended already
	_ = p.cmd.Wait()         // says that it was killed
	return nil
}

// seedTags gives a repository tags that all name one manifest, by writing the
// files that the registry itself would write: thousands of requests would take
// longer than the measurement.
func (p *peer) seedTags(repo, digest string, tags []string) error {
	dir := filepath.Join(p.data, "docker/registry/v2/repositories", repo, "_manifests/tags")
	hex := strings.TrimPrefix(digest, "sha256:")
	for _, tag := range tags {
		for _, link := range []string{"current/link", "index/sha256/" + hex + "/link"} {
			path := filepath.Join(dir, tag, link)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, []byte(digest), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
