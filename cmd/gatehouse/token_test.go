package main

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// askToken runs identityToken as a command would.
func askToken(t *testing.T, o tokenFlags, env map[string]string) (string, error) {
	t.Helper()
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: func(k string) string { return env[k] }}
	return a.identityToken(t.Context(), &o, &network{services: tracer{a, a.egress().Transport()}})
}

func TestIdentityTokens(t *testing.T) {
	github := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" || r.URL.Query().Get("audience") != "sigstore" || r.URL.Query().Get("run") != "1" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, `{"value":"from.git.hub"}`)
	}))
	t.Cleanup(github.Close)
	file := filepath.Join(t.TempDir(), "token.jwt")
	write(t, file, []byte("from.a.file\n"))
	actions := map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": github.URL + "/?run=1", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret"}
	denied := map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": github.URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "other"}
	workload := map[string]string{"SPIFFE_ENDPOINT_SOCKET": "unix://" + spiffe(t, "from.spiffe.agent", "0")}
	for name, c := range map[string]struct {
		o    tokenFlags
		env  map[string]string
		want string // the token, or what the error says
	}{
		"the flag":          {tokenFlags{token: "a.b.c"}, actions, "a.b.c"},
		"a file":            {tokenFlags{token: file}, nil, "from.a.file"},
		"the variable":      {tokenFlags{}, map[string]string{"SIGSTORE_ID_TOKEN": "a.b.c"}, "a.b.c"},
		"GitHub":            {tokenFlags{audience: "sigstore"}, actions, "from.git.hub"},
		"GitHub refuses":    {tokenFlags{audience: "sigstore"}, denied, "HTTP 403"},
		"SPIFFE":            {tokenFlags{audience: "sigstore"}, workload, "from.spiffe.agent"},
		"SPIFFE refuses":    {tokenFlags{}, map[string]string{"SPIFFE_ENDPOINT_SOCKET": spiffe(t, "", "7")}, "status 7"},
		"no SPIFFE":         {tokenFlags{}, map[string]string{"SPIFFE_ENDPOINT_SOCKET": "/no/such/socket"}, "/no/such/socket"},
		"one provider":      {tokenFlags{provider: "github-actions", audience: "sigstore"}, map[string]string{"SIGSTORE_ID_TOKEN": "a.b.c", "ACTIONS_ID_TOKEN_REQUEST_URL": github.URL + "/?run=1", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret"}, "from.git.hub"},
		"another provider":  {tokenFlags{provider: "google"}, nil, "is not known"},
		"none wanted":       {tokenFlags{noAmbient: true}, map[string]string{"SIGSTORE_ID_TOKEN": "a.b.c"}, "no identity token"},
		"none":              {tokenFlags{}, nil, "no identity token"},
		"neither":           {tokenFlags{token: "nothing"}, nil, "neither a token"},
		"a file too large":  {tokenFlags{token: large(t)}, nil, "more than"},
		"a URL that is not": {tokenFlags{}, map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "x", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret"}, "is not a URL"},
	} {
		got, err := askToken(t, c.o, c.env)
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if strings.Contains(got, "secret") {
			t.Errorf("%s: the error tells a secret: %s", name, got)
		}
	}
}

func large(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "large")
	write(t, path, make([]byte, tokenSizeMax+1))
	return path
}

// spiffe is a workload API on a socket, which answers with a token or a status.
func spiffe(t *testing.T, token, status string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "spiffe") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("workload.spiffe.io") != "true" || r.URL.Path != "/SpiffeWorkloadAPI/FetchJWTSVID" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		svid := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "spiffe://example/w")
		svid = protowire.AppendString(protowire.AppendTag(svid, 2, protowire.BytesType), token)
		m := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), svid)
		_, _ = w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...))
		w.Header().Set("Grpc-Status", status)
	})}
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func FuzzWireField(f *testing.F) {
	f.Add([]byte{10, 3, 18, 1, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if v := wireField(wireField(b, 1), 2); len(v) > len(b) {
			t.Errorf("%d bytes of %d", len(v), len(b))
		}
	})
}
