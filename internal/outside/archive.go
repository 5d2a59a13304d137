package outside

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of a TUF repository in an archive.
const (
	archiveFilesMax = 2_000
	archiveSizeMax  = 32 << 20 // bytes of all files
)

// files answer requests as the server of a repository would. They are read only.
type files map[string][]byte

// unpack reads a gzipped tar of a TUF repository. The repository is the folder that
// timestamp.json lies in. CodeInvalid: it is no such archive. CodeTooLarge.
func unpack(r io.Reader) (files, error) {
	bad := func(err error) error {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the archive cannot be read: %w", err).WithHint("write: tar cz -C REPOSITORY . | base64 -w0")
	}
	gz, err := gzip.NewReader(r)
	if err != nil {
		return nil, bad(err)
	}
	all, base, size := files{}, "", int64(0)
	tr := tar.NewReader(io.LimitReader(gz, archiveSizeMax+(1<<20)))
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, bad(err)
		}
		if n == archiveFilesMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the archive has more than %d entries", archiveFilesMax)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(tr, archiveSizeMax-size+1))
		if err != nil {
			return nil, bad(err)
		}
		if size += int64(len(b)); size > archiveSizeMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the archive holds more than %d bytes", archiveSizeMax)
		}
		name := path.Clean("/" + h.Name)
		all[name] = b
		if path.Base(name) == "timestamp.json" {
			base = path.Dir(name)
		}
	}
	if base == "" {
		return nil, bad(errors.New("it holds no timestamp.json"))
	}
	out := files{}
	for name, b := range all {
		if rest, ok := strings.CutPrefix(name, strings.TrimSuffix(base, "/")+"/"); ok {
			out["/"+rest] = b
		}
	}
	return out, nil
}

// RoundTrip implements http.RoundTripper.
func (f files) RoundTrip(req *http.Request) (*http.Response, error) {
	b, has := f[path.Clean(req.URL.Path)]
	resp := &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(b)), ContentLength: int64(len(b)), Request: req,
	}
	if !has {
		resp.Status, resp.StatusCode = "404 Not Found", http.StatusNotFound
	}
	return resp, nil
}
