package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	decideRounds  = 2000
	decideWarm    = 50 // not counted: the image is verified, connections are up
	decideLimitMS = 5
	replySizeMax  = 1 << 20
)

// measureDecide asks the real webhook, over TLS, again and again about a Pod
// whose image has been verified before: one signature policy, one signed image,
// named by digest. Each request has a UID of its own; none is refused.
func measureDecide(ctx context.Context, b *bench) (rows []row, err error) {
	binary, err := b.buildGatehouse(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.work, "decide")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	gatehouse := func(args ...string) error {
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "COSIGN_PASSWORD=bench", "DOCKER_CONFIG="+dir)
		_, err := runUsed(cmd)
		return err
	}
	if err := gatehouse("generate-key-pair"); err != nil {
		return nil, err
	}
	if err := writeKeyPolicy(dir); err != nil {
		return nil, err
	}
	s, err := startServer(ctx, binary, filepath.Join(dir, "data"), "--policy", filepath.Join(dir, "policy.yaml"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()

	host := strings.TrimPrefix(s.url, "http://")
	digest, err := pushRandom(ctx, host+"/bench/app:v1")
	if err != nil {
		return nil, err
	}
	auth := fmt.Sprintf(`{"auths":{%q:{"username":"admin","password":%q}}}`, host, adminPassword)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(auth), 0o600); err != nil {
		return nil, err
	}
	image := host + "/bench/app@" + digest
	allowed, _, err := s.review(ctx, 1, image)
	if err != nil {
		return nil, err
	}
	if allowed != 0 {
		return nil, errors.New("the unsigned image is admitted: the policy is not in force")
	}
	if err := gatehouse("sign", "--key", "cosign.key", image); err != nil {
		return nil, err
	}
	allowed, took, err := s.review(ctx, decideWarm+decideRounds, image)
	if err != nil {
		return nil, err
	}
	if allowed != decideWarm+decideRounds {
		return nil, fmt.Errorf("the signed image: %d of %d admitted", allowed, decideWarm+decideRounds)
	}
	took = took[decideWarm:]
	slices.Sort(took)
	ms := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	return []row{
		under(fmt.Sprintf("decision for a verified image, p99 of %d over HTTPS", decideRounds), ms(0.99), decideLimitMS, "ms"),
		{what: "— median, maximum", measured: fmt.Sprintf("%.4g ms, %.4g ms", ms(0.5), ms(1))},
	}, nil
}

// writeKeyPolicy asks for a signature by cosign.pub on every image.
func writeKeyPolicy(dir string) error {
	key, err := os.ReadFile(filepath.Join(dir, "cosign.pub"))
	if err != nil {
		return err
	}
	policy := fmt.Appendf(nil, `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: signed}
spec:
  images: [{glob: "**"}]
  authorities: [{name: key, key: {data: %q}}]
`, key)
	return os.WriteFile(filepath.Join(dir, "policy.yaml"), policy, 0o600)
}

// pushRandom pushes a small image and returns its digest.
func pushRandom(ctx context.Context, reference string) (digest string, err error) {
	image, err := random.Image(4096, 1)
	if err != nil {
		return "", err
	}
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return "", err
	}
	admin := remote.WithAuth(&authn.Basic{Username: "admin", Password: adminPassword})
	if err := remote.Write(ref, image, admin, remote.WithContext(ctx)); err != nil {
		return "", err
	}
	d, err := image.Digest()
	return d.String(), err
}

// review sends the same Pod n times, one after another, and returns how often
// it was admitted and how long each answer took.
func (s *server) review(ctx context.Context, n int, image string) (allowed int, took []time.Duration, err error) {
	ca, err := s.admissionCA()
	if err != nil {
		return 0, nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Timeout: startWait, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	for i := range n {
		body := fmt.Appendf(nil, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"bench-%d",
			"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},
			"namespace":"default","name":"app","operation":"CREATE","userInfo":{"username":"bench"},"object":{
			"apiVersion":"v1","kind":"Pod","metadata":{"name":"app","namespace":"default"},
			"spec":{"containers":[{"name":"app","image":%q}]}}}}`, i, image)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.admission+"/validate", bytes.NewReader(body))
		if err != nil {
			return 0, nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		start := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			return 0, nil, err
		}
		answer, err := io.ReadAll(io.LimitReader(resp.Body, replySizeMax))
		resp.Body.Close()
		if err != nil {
			return 0, nil, err
		}
		took = append(took, time.Since(start))
		var review struct {
			Response *struct{ Allowed bool }
		}
		if err := json.Unmarshal(answer, &review); err != nil || review.Response == nil {
			return 0, nil, fmt.Errorf("answer %d: %d %s", i, resp.StatusCode, answer)
		}
		if review.Response.Allowed {
			allowed++
		}
	}
	return allowed, took, nil
}
