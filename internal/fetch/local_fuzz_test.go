package fetch

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gatehouse-dev/gatehouse"
)

// FuzzTarSplit: whatever the file of headers says, what comes out stays below
// the layer's directory, and reading ends.
func FuzzTarSplit(f *testing.F) {
	dir := f.TempDir()
	for name, text := range map[string]string{"outside": "secret", "diff/inside": "harmless"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.Symlink("../outside", filepath.Join(dir, "diff", "link")); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"type":2,"payload":"aGVhZA==","position":0}` + "\n" + `{"type":1,"name":"inside","size":8,"payload":"AA=="}`))
	f.Add([]byte(`{"type":1,"name":"link","size":6}`))
	f.Add([]byte(`{"type":1,"name":"../outside","size":6}`))
	f.Add([]byte(`{"type":1,"name_raw":"Li4vb3V0c2lkZQ==","size":6}`))
	f.Add([]byte(`{"type":1,"name":"inside","size":9000000000}`))
	f.Add([]byte(`{"type":3}`))
	f.Add([]byte(strings.Repeat("[", 1000)))
	f.Fuzz(func(t *testing.T, entries []byte) {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(entries)
		w.Close()
		name := filepath.Join(t.TempDir(), "split")
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		split, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(filepath.Join(dir, "diff"))
		if err != nil {
			t.Fatal(err)
		}
		rc, err := newTarSplit(t.Context(), split, root)
		if err != nil {
			t.Fatal(err) // what it is given is gzip
		}
		out, _ := io.ReadAll(rc) // most of it is no tar-split
		if bytes.Contains(out, []byte("secret")) && !bytes.Contains(entries, []byte("c2VjcmV0")) && !bytes.Contains(entries, []byte("secret")) {
			t.Errorf("a file outside of the directory came out of %s", entries)
		}
		if len(out) > len(entries)+1000*len("harmless") {
			t.Errorf("%d bytes came out of %d", len(out), len(entries))
		}
		if err := rc.Close(); err != nil {
			t.Error(err)
		}
	})
}

// canned answers every request with the same bytes and trailer.
type canned struct {
	body    []byte
	trailer http.Header
}

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(c.body)), Trailer: c.trailer}, nil
}

func grpcFrame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// FuzzContainerd: an answer that is no answer is an error, and never a manifest
// with other bytes than its digest.
func FuzzContainerd(f *testing.F) {
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`)
	digest := gatehouse.DigestOf(manifest)
	f.Add(grpcFrame(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), manifest)), "0")
	f.Add(grpcFrame(nil), "5")
	f.Add([]byte{1, 0, 0, 0, 0}, "0")
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff}, "")
	f.Fuzz(func(t *testing.T, body []byte, status string) {
		s := &containerdStore{rt: canned{body, http.Header{"Grpc-Status": {status}}}, namespace: "default", socket: "s"}
		if m, err := s.manifest(context.Background(), digest); err == nil && !bytes.Equal(m.Body, manifest) {
			t.Errorf("a manifest with other bytes: %q", m.Body)
		}
		if d, err := s.target(context.Background(), "name"); err == nil {
			if _, err := gatehouse.ParseDigest(string(d)); err != nil {
				t.Error(err)
			}
		}
	})
}
