package index_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// rssMax is what indexing may hold at most, however large the image.
const rssMax = 256 << 20

// childEnv tells the test binary to be the child of TestPeakMemory.
const childEnv = "GATEHOUSE_TEST_INDEX_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		os.Exit(memoryChild(name))
	}
	os.Exit(m.Run())
}

// memoryCases are layers that are larger than what may be held. Each is written
// as it is read: the test itself holds nothing of it.
var memoryCases = map[string]struct {
	write func(io.Writer) error
	why   string // "" where the layer must be indexed whole
}{
	// A single file of 4 GB of zeros, as a sparse file arrives from builders
	// that do not know holes.
	"4 GB of zeros": {write: func(w io.Writer) error { return writeZeros(w, 4<<30) }},
	// Files that are kept whole while they are read, beyond what memory takes.
	"sparse files that extractors read": {write: func(w io.Writer) error {
		for i := range 3 {
			if _, err := w.Write(sparse(fmt.Sprintf("%d.jar", i), 400<<20)); err != nil {
				return err
			}
		}
		return tar.NewWriter(w).Close()
	}},
	"4 GB sparse file that looks like a program": {write: func(w io.Writer) error {
		if _, err := w.Write(sparseWithHead("usr/bin/x", 4<<30, "\x7fELF\x02\x01\x01")); err != nil {
			return err
		}
		return tar.NewWriter(w).Close()
	}, why: "sparse files have more than"},
	"millions of tiny files": {write: func(w io.Writer) error {
		return writeMany(w, 1_200_000, func(i int) entry { return entry{name: fmt.Sprintf("srv/%d/%d/file-with-a-name", i%1000, i)} })
	}},
	"millions of findings": {write: func(w io.Writer) error {
		return writeMany(w, 200_000, func(i int) entry {
			return entry{name: fmt.Sprintf("srv/%d.sh", i), body: "#!\n" + tokenOf(fmt.Sprint(i, "x")), mode: 0o6777}
		})
	}, why: "more than 5000 findings"},
}

// sparseWithHead is a sparse file (GNU, old format) that begins with head.
func sparseWithHead(name string, size int64, head string) []byte {
	b := sparse(name, size)
	copy(b[124:], fmt.Sprintf("%011o\x00", 512))
	copy(b[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, 512))
	putOctal(b[386+24:], size)
	putOctal(b[386+36:], 0)
	fixChecksum(b)
	return append(b, append([]byte(head), make([]byte, 512-len(head))...)...)
}

func writeMany(out io.Writer, n int, make func(int) entry) error {
	w := tar.NewWriter(out)
	for i := range n {
		e := make(i)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.body)), Mode: e.mode | 0o644}); err != nil {
			return err
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			return err
		}
	}
	return w.Close()
}

// childReport is what the child tells.
type childReport struct {
	Complete bool
	Reasons  []string
	Error    string
	Size     int64
	Stored   int // bytes of the inventory as JSON
	RSS      int64
	Seconds  float64
}

// memoryChild indexes one of memoryCases and reports its own peak.
func memoryChild(name string) int {
	r, w := io.Pipe()
	go func() {
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		err := memoryCases[name].write(z)
		if err == nil {
			err = z.Close()
		}
		_ = w.CloseWithError(err)
	}()
	begin := time.Now()
	inv, err := index.Layer(context.Background(), r, index.Limits{RatioMax: 1 << 30, TempDir: os.TempDir()}, index.All())
	report := childReport{Complete: inv.Complete, Reasons: inv.Incomplete, Size: inv.Size, Seconds: time.Since(begin).Seconds()}
	if err != nil {
		report.Error = err.Error()
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 1
	}
	report.RSS = used.Maxrss << 10 // Linux counts KiB
	count := &countingWriter{w: io.Discard}
	_ = json.NewEncoder(count).Encode(inv)
	report.Stored = int(count.n)
	_ = json.NewEncoder(os.Stdout).Encode(report)
	return 0
}

// TestPeakMemory: what a process holds while it indexes does not grow with the
// layer, with secrets, modes and digests on.
func TestPeakMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the peak of a process is measured on Linux")
	}
	if testing.Short() {
		t.Skip("reads layers of gigabytes")
	}
	for name, c := range memoryCases {
		t.Run(name, func(t *testing.T) {
			child := exec.CommandContext(t.Context(), os.Args[0])
			child.Env = append(os.Environ(), childEnv+"="+name, "TMPDIR="+t.TempDir(), "GOTRACEBACK=all")
			var out, problems bytes.Buffer
			child.Stdout, child.Stderr = &out, &problems
			if err := child.Run(); err != nil {
				t.Fatalf("%v\n%s", err, problems.String())
			}
			var got childReport
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v in %q", err, out.String())
			}
			t.Logf("peak %d MiB, %.1f s, layer of %d MiB, inventory of %d KiB", got.RSS>>20, got.Seconds, got.Size>>20, got.Stored>>10)
			if got.RSS > rssMax {
				t.Errorf("%d MiB were held", got.RSS>>20)
			}
			if got.Error != "" || got.Complete != (c.why == "") || !strings.Contains(strings.Join(got.Reasons, "\n"), c.why) {
				t.Errorf("complete %v, reasons %q, error %s", got.Complete, got.Reasons, got.Error)
			}
		})
	}
}
