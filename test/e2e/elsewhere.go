package e2e

import (
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Admission is a running `gatehouse admission` that follows a server from another
// cluster.
type Admission struct {
	URL          string // http://127.0.0.1:PORT
	AdmissionURL string // https://127.0.0.1:PORT

	Key string // file with the server's public key

	of      *Gatehouse
	dir     string
	process *Process
}

// Stop ends the process and waits for it.
func (a *Admission) Stop() { a.process.Stop() }

// ReserveAdmission prepares an admission that follows g, which runs. Call Start next.
func (g *Gatehouse) ReserveAdmission(t testing.TB) *Admission {
	t.Helper()
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(g.URL + "/api/v1/facts/key")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	key, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the server's key: %d %v", resp.StatusCode, err)
	}
	return &Admission{
		URL: "http://127.0.0.1:" + strconv.Itoa(ports[0]), AdmissionURL: "https://127.0.0.1:" + strconv.Itoa(ports[1]),
		of: g, Key: g.WriteFile(t, "facts.pub", key), dir: t.TempDir(),
	}
}

// Start runs it with more flags and waits until it is ready. It ends with the test.
func (a *Admission) Start(t testing.TB, flags ...string) {
	t.Helper()
	args := append([]string{"admission", "--server", a.of.URL, "--facts-key", a.Key,
		"--registry-login-file", filepath.Join(a.of.Dir, "docker", "config.json"), "--data", a.dir,
		"--listen", a.URL[len("http://"):], "--admission-listen", a.AdmissionURL[len("https://"):]}, flags...)
	t.Setenv("GATEHOUSE_ADMIN_PASSWORD", adminPassword)
	p, err := start(t, filepath.Join(a.of.Dir, "admission.log"), a.of.Binary, args...)
	if err != nil {
		t.Fatal(err)
	}
	a.process = p
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	if err := waitReady(t.Context(), p, client, a.URL+"/readyz", ""); err != nil {
		t.Fatalf("gatehouse admission: %v", err)
	}
}
