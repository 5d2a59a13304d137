package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	admissionImages  = 10_000 // signed, in our registry
	admissionRate    = 500    // reviews per second, whether or not they are answered
	admissionTime    = 20 * time.Second
	admissionClients = 64 // reviews that may be on their way at once
	// admissionConnections are kept by client-go per host, which the API server uses.
	admissionConnections = 25
	admissionWarmMS      = 5  // p99
	admissionColdMS      = 50 // p99
	admissionCPUMS       = 0.7
	admissionMemoryMB    = 150
	admissionHost        = "registry.bench"
)

// measureAdmission asks the real webhook over TLS about Pods of 10,000 signed images
// of its own registry: once about each after a restart, when nothing is remembered,
// and then about any of them. Reviews are sent by the clock: one that has to wait for
// another has waited.
func measureAdmission(ctx context.Context, b *bench) (rows []row, err error) {
	binary, err := b.buildGatehouse(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.work, "admission")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "cosign.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	if err := writeKeyPolicy(dir); err != nil {
		return nil, err
	}
	open := func() (*server, error) {
		return startServer(ctx, binary, filepath.Join(dir, "data"), "--policy", filepath.Join(dir, "policy.yaml"), "--hostnames", admissionHost, "--sbom-referrers=false", "--access-log", "off")
	}
	s, err := open()
	if err != nil {
		return nil, err
	}
	digests, err := pushSigned(ctx, s, key)
	if err == nil {
		err = calm(s.target())
	}
	if err = errors.Join(err, s.stop()); err != nil {
		return nil, err
	}
	if s, err = open(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := calm(s.target()); err != nil {
		return nil, err
	}
	cold, err := s.reviewsByTheClock(ctx, admissionImages, func(n int) string { return digests[n] })
	if err != nil {
		return nil, err
	}
	count := int(admissionRate * admissionTime.Seconds())
	warm, err := s.reviewsByTheClock(ctx, count, func(n int) string { return digests[n*7919%len(digests)] })
	if err != nil {
		return nil, err
	}
	rss, peak, err := memory(s.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	mb := func(n int64) float64 { return float64(n) / (1 << 20) }
	return []row{
		under(fmt.Sprintf("review of an image that was judged before, p99 at %d reviews/s over TLS", admissionRate), warm.ms(0.99), admissionWarmMS, "ms"),
		{what: "— median, maximum", measured: fmt.Sprintf("%.3g ms, %.3g ms", warm.ms(0.5), warm.ms(1))},
		under("— server CPU per review", float64(warm.cpu.Microseconds())/1000, admissionCPUMS, "ms"),
		under(fmt.Sprintf("first review of an image of the own registry, p99 at %d reviews/s", admissionRate), cold.ms(0.99), admissionColdMS, "ms"),
		{what: "— median, maximum, server CPU", measured: fmt.Sprintf("%.3g ms, %.3g ms, %.3g ms", cold.ms(0.5), cold.ms(1), float64(cold.cpu.Microseconds())/1000)},
		under(fmt.Sprintf("memory (RSS) with %d images known", admissionImages), mb(rss), admissionMemoryMB, "MiB"),
		{what: "— its peak until then", measured: fmt.Sprintf("%.4g MiB", mb(peak))},
	}, nil
}

// calm waits until a server has done what pushes left to do: jobs come with pauses.
func calm(t *target) (err error) {
	for range 10 {
		err = errors.Join(err, settled(t))
	}
	return err
}

// pushSigned pushes images that differ by an annotation, each with a signature as
// cosign before version 3 stores it.
func pushSigned(ctx context.Context, s *server, key *ecdsa.PrivateKey) ([]string, error) {
	const repo, configType, layerType = "bench/app", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"
	t := s.target()
	first, err := dial(t)
	if err != nil {
		return nil, err
	}
	defer first.close()
	layer := make([]byte, 1024) // an empty tar
	config := fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, digestOf(layer))
	for _, blob := range [][]byte{layer, config, []byte("{}")} {
		if err := first.pushBlob(repo, digestOf(blob), blob); err != nil {
			return nil, err
		}
	}
	manifest := func(config []byte, layerType string, layer []byte, annotation, layerAnnotation string) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"dev.cosignproject.cosign/signature":%q}}],"annotations":{"n":%q}}`,
			manifestType, configType, digestOf(config), len(config), layerType, digestOf(layer), len(layer), layerAnnotation, annotation)
	}
	digests := make([]string, admissionImages)
	l := load{clients: 4, count: admissionImages, op: func(c *client, n int) error {
		image := manifest(config, layerType, layer, fmt.Sprint(n), "")
		digests[n] = digestOf(image)
		if err := c.pushManifest(repo, fmt.Sprint("v", n), image); err != nil {
			return err
		}
		payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digests[n])
		sum := sha256.Sum256(payload)
		signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			return err
		}
		if _, err := c.want(http.StatusCreated, "POST", repo, "/v2/"+repo+"/blobs/uploads/?digest="+digestOf(payload), payload, "Content-Type", "application/octet-stream"); err != nil {
			return err
		}
		signed := manifest([]byte("{}"), "application/vnd.dev.cosign.simplesigning.v1+json", payload, fmt.Sprint(n), base64.StdEncoding.EncodeToString(signature))
		return c.pushManifest(repo, "sha256-"+digests[n][len("sha256:"):]+".sig", signed)
	}}
	_, err = l.run(ctx, t)
	return digests, err
}

// reviewed is what a run of reviews found.
type reviewed struct {
	took []time.Duration // sorted; from the moment that each was due
	cpu  time.Duration   // of the server, per review
}

func (r reviewed) ms(share float64) float64 {
	return float64(r.took[int(share*float64(len(r.took)-1))].Microseconds()) / 1000
}

// reviewsByTheClock sends n reviews at admissionRate and wants all admitted.
func (s *server) reviewsByTheClock(ctx context.Context, n int, digest func(int) string) (out reviewed, err error) {
	client, err := s.webhookClient()
	if err != nil {
		return out, err
	}
	defer client.CloseIdleConnections()
	before, err := processCPU(s.cmd.Process.Pid)
	if err != nil {
		return out, err
	}
	var mu sync.Mutex
	var failed error
	due := make(chan int, n)
	start := time.Now()
	at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Second / admissionRate) }
	var wg sync.WaitGroup
	for range admissionClients {
		wg.Go(func() {
			for i := range due {
				err := s.admitted(ctx, client, i, digest(i))
				took := time.Since(at(i))
				mu.Lock()
				out.took = append(out.took, took)
				if err != nil && failed == nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	for i := range n {
		time.Sleep(time.Until(at(i)))
		due <- i
	}
	close(due)
	wg.Wait()
	after, err := processCPU(s.cmd.Process.Pid)
	if err = errors.Join(err, failed); err != nil {
		return out, err
	}
	out.cpu = (after - before) / time.Duration(n)
	slices.Sort(out.took)
	return out, nil
}

// webhookClient speaks to the webhook as the API server does to a Service, or to a URL
// that is not its own machine's: HTTP/1.1 (https://issue.k8s.io/75791) over connections
// of which it keeps so many.
func (s *server) webhookClient() (*http.Client, error) {
	ca, err := s.admissionCA()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Timeout: startWait, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}}, MaxIdleConnsPerHost: admissionConnections,
	}}, nil
}

// admitted sends one review of a Pod such as a Deployment makes.
func (s *server) admitted(ctx context.Context, client *http.Client, n int, digest string) error {
	body := fmt.Appendf(nil, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"bench-%d",
		"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"requestKind":{"group":"","version":"v1","kind":"Pod"},
		"namespace":"default","operation":"CREATE","userInfo":{"username":"system:serviceaccount:kube-system:replicaset-controller","groups":["system:serviceaccounts","system:authenticated"]},
		"object":{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"app-","namespace":"default","labels":{"app":"app","pod-template-hash":"abc"},
		"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app","uid":"1","controller":true,"blockOwnerDeletion":true}]},
		"spec":{"containers":[{"name":"app","image":"%s/bench/app@%s","env":[{"name":"A","value":"b"}],"ports":[{"containerPort":8080,"protocol":"TCP"}],
		"resources":{"requests":{"cpu":"100m","memory":"64Mi"}},"volumeMounts":[{"name":"token","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","readOnly":true}],
		"livenessProbe":{"httpGet":{"path":"/","port":8080},"periodSeconds":10},"imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","serviceAccountName":"default",
		"volumes":[{"name":"token","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}}]}}],
		"tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]}},
		"oldObject":null,"dryRun":false,"options":{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}}}`, n, admissionHost, digest)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.admission+"/validate?timeout=10s", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, replySizeMax))
	if err != nil {
		return err
	}
	var review struct {
		Response struct{ Allowed bool }
	}
	if err := json.Unmarshal(answer, &review); err != nil || !review.Response.Allowed {
		return fmt.Errorf("review %d: %d %s", n, resp.StatusCode, answer)
	}
	return nil
}
