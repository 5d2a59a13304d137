package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

const adminPassword = "e2e-password-of-no-value"

// Gatehouse is a running `gatehouse serve`, the binary itself, and a shell to
// use it from: programs run by Run are logged in.
type Gatehouse struct {
	Binary       string
	Host         string // 127.0.0.1:PORT, as image references write it
	URL          string // http://Host
	AdmissionURL string // https://127.0.0.1:PORT
	AdmissionCA  []byte // PEM
	Dir          string // data, Docker configuration, whatever a test wants

	process *Process // the last that was started
}

// Stop ends the server and waits for it.
func (g *Gatehouse) Stop() { g.process.Stop() }

// Kill ends the server at once and waits for it.
func (g *Gatehouse) Kill() { g.process.Kill() }

// ID is the process id of the server that was started last.
func (g *Gatehouse) ID() int { return g.process.ID() }

// BuildGatehouse builds the binary of this clone, with the flags of the tests
// (not those of make build), so that it shares what they have compiled. After KeepBuilds
// it is built once.
func BuildGatehouse(t testing.TB) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.path != "" {
		return built.path
	}
	dir := built.dir
	if dir == "" {
		dir = t.TempDir()
	}
	path := filepath.Join(dir, "gatehouse")
	if err := Build(t.Context(), path, false); err != nil {
		t.Fatal(err)
	}
	if built.dir != "" {
		built.path = path
	}
	return path
}

var built struct {
	sync.Mutex
	dir, path string
}

// KeepBuilds has the binary that tests build kept in dir, for all tests of this process:
// to link it takes longer than most of them. It is for TestMain, which removes dir.
func KeepBuilds(dir string) {
	built.Lock()
	defer built.Unlock()
	built.dir = dir
}

// Build builds the binary of this clone at path, with the race detector in it or
// without.
func Build(ctx context.Context, path string, race bool) error {
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	root, err := tool.ModuleRoot(wd)
	if err != nil {
		return err
	}
	args, cgo := []string{"build", "-buildvcs=false", "-o", path}, "CGO_ENABLED=0"
	if race {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/gatehouse")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), cgo, "PWD="+root)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/gatehouse: %w\n%s", err, out)
	}
	return nil
}

// ReserveGatehouse prepares a server whose address is known before it starts,
// so that policies can name it. Call Start next.
func ReserveGatehouse(t testing.TB) *Gatehouse {
	t.Helper()
	return reserve(t, BuildGatehouse(t))
}

// Another prepares one more server of the same binary, with addresses and a directory of
// its own. With the same database it is a replica of the first.
func (g *Gatehouse) Another(t testing.TB) *Gatehouse {
	t.Helper()
	return reserve(t, g.Binary)
}

func reserve(t testing.TB, binary string) *Gatehouse {
	t.Helper()
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	g := &Gatehouse{
		Binary:       binary,
		Host:         "127.0.0.1:" + strconv.Itoa(ports[0]),
		AdmissionURL: "https://127.0.0.1:" + strconv.Itoa(ports[1]),
		Dir:          t.TempDir(),
	}
	g.URL = "http://" + g.Host
	auth := base64.StdEncoding.EncodeToString([]byte("admin:" + adminPassword))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{g.Host: map[string]string{"auth": auth}}})
	if err != nil {
		t.Fatal(err)
	}
	g.WriteFile(t, "docker/config.json", config)
	return g
}

// Start runs `gatehouse serve` with more flags and waits until it is ready. It
// ends with the test.
func (g *Gatehouse) Start(t testing.TB, flags ...string) {
	t.Helper()
	ready := filepath.Join(g.Dir, "ready")
	args := append([]string{"serve", "--data", filepath.Join(g.Dir, "data"), "--ready-file", ready,
		"--listen", g.Host, "--admission-listen", g.AdmissionURL[len("https://"):]}, flags...)
	t.Setenv("GATEHOUSE_ADMIN_PASSWORD", adminPassword)
	p, err := start(t, filepath.Join(g.Dir, "gatehouse.log"), g.Binary, args...)
	if err != nil {
		t.Fatal(err)
	}
	g.process = p
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	if err := waitReady(t.Context(), p, client, g.URL+"/readyz", ""); err != nil {
		t.Fatalf("gatehouse serve: %v", err)
	}
	// Where the cluster keeps the certificate there is no such file.
	if g.AdmissionCA, err = os.ReadFile(filepath.Join(g.Dir, "data", "keys", "admission-ca.crt")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// WriteFile writes a file below Dir and returns its path.
func (g *Gatehouse) WriteFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(g.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Run runs a client with the administrator's credentials, in Dir, and returns
// what it wrote to standard output. That it fails fails the test.
func (g *Gatehouse) Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = g.Dir
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+filepath.Join(g.Dir, "docker"), "HOME="+g.Dir,
		"COSIGN_PASSWORD=e2e", "PWD="+g.Dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", filepath.Base(program), args, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String()
}

// KeyPolicy is a ClusterImagePolicy that asks for a signature by one key on
// every image below a glob.
func KeyPolicy(name, glob string, publicKey []byte) []byte {
	return fmt.Appendf(nil, `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
  name: %s
spec:
  images:
  - glob: %q
  authorities:
  - name: key
    key:
      data: %q
`, name, glob, publicKey)
}
