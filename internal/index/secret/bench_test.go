package secret

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

// benchFiles are programs, scripts and settings of this machine, up to 64 MB.
func benchFiles(b *testing.B) (files [][]byte, size int64) {
	for _, pattern := range []string{"/etc/*", "/usr/bin/*", "/usr/lib/*/lib*.so.*"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil || !info.Mode().IsRegular() || size > 64<<20 {
				continue
			}
			if content, err := os.ReadFile(name); err == nil {
				files, size = append(files, content), size+int64(len(content))
			}
		}
	}
	if size == 0 {
		b.Skip("no files to read")
	}
	b.SetBytes(size)
	return files, size
}

// perCPU reports the speed by the processor time of the process, which holds on a
// busy machine too.
func perCPU(b *testing.B) func() {
	_, size := benchFiles(b)
	used := func() float64 {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
	}
	before := used()
	return func() { b.ReportMetric(float64(size)*float64(b.N)/1e6/(used()-before), "MB/cpu-s") }
}

// BenchmarkFilter is the pass over every byte.
func BenchmarkFilter(b *testing.B) {
	files, _ := benchFiles(b)
	f := rules().filter
	defer perCPU(b)()
	var hits []hit
	for b.Loop() {
		for _, file := range files {
			hits = f.scan(file, 0, len(file), hits[:0])
		}
	}
}

// BenchmarkScanner is the whole, with the rules around what the filter finds.
func BenchmarkScanner(b *testing.B) {
	files, _ := benchFiles(b)
	s := NewScanner()
	defer perCPU(b)()
	for b.Loop() {
		for _, file := range files {
			s.Begin("usr/bin/x")
			s.Piece(file, 0, true, func(gatehouse.Finding) {})
		}
	}
}

// BenchmarkCount is what the standard library needs for one word, to compare.
func BenchmarkCount(b *testing.B) {
	files, _ := benchFiles(b)
	defer perCPU(b)()
	for b.Loop() {
		for _, file := range files {
			bytes.Count(file, []byte("ghp_"))
		}
	}
}
