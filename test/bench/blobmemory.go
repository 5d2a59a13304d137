package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
)

// growLimitMB is how much more memory a blob of a GiB may take than one of
// 16 MiB: both go through the same buffers.
const growLimitMB = 16

// measureBlobMemory pushes and pulls a small and a large blob and compares the
// largest resident set of a server that has done just that.
func measureBlobMemory(ctx context.Context, b *bench) ([]row, error) {
	binary, err := b.buildGatehouse(ctx)
	if err != nil {
		return nil, err
	}
	var peaks []float64
	sizes := []int64{16 << 20, 1 << 30}
	for _, size := range sizes {
		data := filepath.Join(b.work, fmt.Sprintf("memory-%d", size))
		peak, err := blobPeak(ctx, binary, data, size)
		if err := errors.Join(err, os.RemoveAll(data)); err != nil {
			return nil, err
		}
		peaks = append(peaks, float64(peak)/(1<<20))
	}
	return []row{
		under(fmt.Sprintf("memory: peak RSS that pushing and pulling %d MiB takes beyond that of %d MiB", sizes[1]>>20, sizes[0]>>20), max(0, peaks[1]-peaks[0]), growLimitMB, "MiB"),
		{what: fmt.Sprintf("— peak at %d MiB, at %d MiB", sizes[0]>>20, sizes[1]>>20), measured: fmt.Sprintf("%.4g MiB, %.4g MiB", peaks[0], peaks[1])},
	}, nil
}

func blobPeak(ctx context.Context, binary, data string, size int64) (peak int64, err error) {
	s, err := startServer(ctx, binary, data, "--log-level", "error")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	request := func(method, path string, body io.Reader, size int64) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
		if err != nil {
			return nil, err
		}
		r.ContentLength = size
		r.SetBasicAuth("admin", adminPassword)
		return http.DefaultClient.Do(r)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, &pattern{left: size}); err != nil {
		return 0, err
	}
	digest := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	resp, err := request("POST", "/v2/bench/app/blobs/uploads/?digest="+digest, &pattern{left: size}, size)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return 0, fmt.Errorf("the push ended with %s", resp.Status)
	}
	if resp, err = request("GET", "/v2/bench/app/blobs/"+digest, nil, 0); err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
		return 0, fmt.Errorf("pulled %d bytes of %d: %w", n, size, err)
	}
	_, peak, err = memory(s.cmd.Process.Pid)
	return peak, err
}

// pattern is a stream of bytes that never repeats itself within a blob and
// costs nothing to make.
type pattern struct{ left, at int64 }

// Read implements io.Reader.
func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.left)]
	for i := range b {
		b[i] = byte((p.at + int64(i)) >> (uint(i&3) * 8))
	}
	p.left, p.at = p.left-int64(len(b)), p.at+int64(len(b))
	return len(b), nil
}
