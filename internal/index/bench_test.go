package index_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// benchLayer is a gzip layer of about 150 MB of this machine's /usr, and its
// package database: executables, scripts, libraries and data as images have
// them. GATEHOUSE_BENCH_LAYER names a gzip layer to measure instead.
var benchLayer = sync.OnceValues(func() ([]byte, int64) {
	if name := os.Getenv("GATEHOUSE_BENCH_LAYER"); name != "" {
		blob, err := os.ReadFile(name)
		if err != nil {
			panic(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(blob))
		if err != nil {
			panic(err)
		}
		size, err := io.Copy(io.Discard, z)
		if err != nil {
			panic(err)
		}
		return blob, size
	}
	const sizeMax = 150 << 20
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, 6)
	count := &countingWriter{w: z}
	w := tar.NewWriter(count)
	add := func(name string, d fs.DirEntry, err error) error {
		if err != nil || count.n > sizeMax {
			return fs.SkipAll
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > 64<<20 {
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return nil
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name[1:], Size: int64(len(content)), Mode: int64(info.Mode().Perm())}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	}
	for _, dir := range []string{"/var/lib/dpkg/status", "/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share", "/usr/lib"} {
		_ = filepath.WalkDir(dir, add)
	}
	_ = w.Close()
	_ = z.Close()
	return out.Bytes(), count.n
})

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.w.Write(p)
}

// reportCPU reports the processor time of the process, all goroutines together,
// which holds on a busy machine too.
func reportCPU(b *testing.B) func() {
	used := func() float64 {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e6
	}
	before := used()
	return func() { b.ReportMetric((used()-before)/float64(b.N), "cpu-ms/op") }
}

// BenchmarkFloor is what nobody can avoid who works in one goroutine: inflate,
// hash, and read every body of the tar.
func BenchmarkFloor(b *testing.B) {
	layer, size := benchLayer()
	b.SetBytes(size)
	defer reportCPU(b)()
	for b.Loop() {
		z, err := gzip.NewReader(bytes.NewReader(layer))
		if err != nil {
			b.Fatal(err)
		}
		sum := sha256.New()
		in := io.TeeReader(z, sum)
		for t := tar.NewReader(in); ; {
			if _, err := t.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, t); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := io.Copy(io.Discard, in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLayer is the whole of Layer on the same bytes, and what each kind of
// looking costs of it.
func BenchmarkLayer(b *testing.B) {
	layer, size := benchLayer()
	all := index.All()
	for _, bench := range []struct {
		name string
		what index.Analysis
	}{
		{"all", all},
		{"packages", index.Packages()},
		{"packages+secrets", all.Without(index.InspectMisconfig, index.InspectFiles)},
		{"packages+misconfig", all.Without(index.InspectSecrets, index.InspectFiles)},
		{"packages+files", all.Without(index.InspectSecrets, index.InspectMisconfig)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			defer reportCPU(b)()
			for b.Loop() {
				if _, err := index.Layer(b.Context(), bytes.NewReader(layer), index.Limits{}, bench.what); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
