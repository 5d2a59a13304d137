package e2e

import (
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// StartRelay runs `gatehouse image-verifier --serve` with the configuration of a node
// and returns its URL. It ends with the test.
func StartRelay(t testing.TB, g *Gatehouse, config string) string {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:" + strconv.Itoa(ports[0])
	p, err := start(t, filepath.Join(g.Dir, "relay.log"), g.Binary, "image-verifier", "--serve", addr, "--node-config", config)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	if err := waitReady(t.Context(), p, client, "http://"+addr, ""); err != nil {
		t.Fatalf("gatehouse image-verifier: %v", err)
	}
	return "http://" + addr
}
