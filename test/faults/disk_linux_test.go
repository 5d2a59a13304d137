package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// needRoot skips a test that mounts file systems.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system that fills or breaks")
	}
}

// refusals counts the answers 503 that pushers get, and looks at each of them.
type refusals struct {
	seen atomic.Int64
	t    testing.TB
	hint string // part of every message; empty: any
}

// watch makes the pushers of c report what they are refused.
func (r *refusals) watch(c *crowd) *refusals {
	r.t = c.t
	for _, p := range c.pushers {
		p.leases = true // which cannot be given back while nothing can be written
		p.c.refused = func(e *refusal) {
			if e.status < 500 {
				return
			}
			r.seen.Add(1)
			switch {
			case !e.unavailable():
				r.t.Errorf("%v: want 503 UNAVAILABLE", e)
			case e.header.Get("Retry-After") == "":
				r.t.Errorf("%v: without Retry-After", e)
			case !e.head() && !strings.Contains(e.message, r.hint):
				r.t.Errorf("%v: does not say %q", e, r.hint)
			}
		}
	}
	return r
}

// fillUp takes all the room of a file system and returns what gives it back.
func fillUp(t testing.TB, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 1; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the file system does not fill: %v", err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// TestDiskFull fills the disk under parallel pushes, again and again. Pushes are
// refused with 503 and a hint, reads go on, nothing is stored by half, and the
// same process goes on when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	needRoot(t)
	r := newReplica(t, "gatehouse", t.TempDir())
	if err := os.Mkdir(r.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", r.data(), "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(r.data(), 0) })
	c := newCrowd(t, r)
	full := (&refusals{hint: "full"}).watch(c)
	r.start()
	c.begin()
	for round := 1; round <= 6 && !t.Failed(); round++ {
		c.ledger.next()
		c.pushFor(200, func() {})
		free := fillUp(t, r.data())
		before := full.seen.Load()
		for tries := 0; full.seen.Load() < before+20 && tries < 100 && !t.Failed(); tries++ {
			c.pushFor(50, func() {})
		}
		if full.seen.Load() == before {
			t.Error("nothing was refused on a full disk")
		}
		c.check(round) // reads go on
		free()
		acknowledged := c.ledger.count()
		for tries := 0; c.ledger.count() < acknowledged+5 && tries < 100 && !t.Failed(); tries++ {
			c.pushFor(100, func() {})
		}
		if c.ledger.count() < acknowledged+5 {
			t.Error("there is room again, and pushes fail")
		}
		c.check(round)
	}
	if err := r.terminate(); err != nil { // so that leases end that could not be given back
		t.Error(err)
	}
	r.start()
	c.end()
	c.check(0)
	if err := errors.Join(r.terminate(), r.fsck()); err != nil {
		t.Error(err)
	}
	wantSound(t, r.data(), true)
	t.Logf("%d requests were refused", full.seen.Load())
}

// loopDisk is an ext4 file system in a file, which can break under its users.
type loopDisk struct {
	t           testing.TB
	image, dir  string
	mounted     bool
	mount, fsck string
}

func newLoopDisk(t testing.TB, dir string) *loopDisk {
	t.Helper()
	needRoot(t)
	d := &loopDisk{t: t, image: filepath.Join(t.TempDir(), "disk"), dir: dir,
		mount: tool.Need(t, "mount"), fsck: tool.Need(t, "e2fsck")}
	mkfs := tool.Need(t, "mkfs.ext4")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, 256<<20); err != nil {
		t.Fatal(err)
	}
	d.run(mkfs, "-q", "-F", d.image)
	if out, err := exec.Command(d.mount, "-o", "loop", d.image, dir).CombinedOutput(); err != nil {
		t.Skipf("a loop device cannot be mounted here: %v: %s", err, out)
	}
	d.mounted = true
	t.Cleanup(d.unmount)
	return d
}

func (d *loopDisk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// shutdownNow is FS_IOC_SHUTDOWN, and noLogFlush how: nothing that is still on
// its way is written.
const (
	shutdownNow = 0x8004587d
	noLogFlush  = 2
)

// breakDown makes the kernel give the file system up, as it does after an error
// of the device: from now on nothing can be written, and what was not synced is
// lost.
func (d *loopDisk) breakDown() {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	how := uint32(noLogFlush)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdownNow, uintptr(unsafe.Pointer(&how))); errno != 0 {
		d.t.Fatalf("shut the file system down: %v", errno)
	}
}

func (d *loopDisk) unmount() {
	if !d.mounted {
		return
	}
	// The kernel frees the files of a killed process a moment after its end.
	var err error
	for range 500 {
		if err = syscall.Unmount(d.dir, 0); err == nil {
			d.mounted = false
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.t.Errorf("unmount %s: %v", d.dir, err)
}

// mend unmounts, repairs and mounts again: what comes back is what was synced.
func (d *loopDisk) mend() {
	d.t.Helper()
	d.unmount()
	out, err := exec.Command(d.fsck, "-f", "-y", d.image).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 2) { // 1 and 2: repaired
		d.t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	d.run(d.mount, "-o", "loop", d.image, d.dir)
	d.mounted = true
}

// TestDiskBreaks takes the disk away in the middle of parallel pushes: it becomes
// read-only, as after an error of the device. Pushes are refused with 503, and
// when the disk is back, with all that was not synced gone, every promise holds.
func TestDiskBreaks(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "gatehouse", t.TempDir())
	d := newLoopDisk(t, r.data())
	c := newCrowd(t, r)
	broken := new(refusals).watch(c)
	// A sync that is under way when the kernel gives up may return without an
	// error, of whose transaction nothing is on the disk: jbd2 takes one that it
	// dropped for one that it committed. So what is answered from the first moment
	// of the end on is no promise; what was answered before is.
	var breaking atomic.Bool
	for _, p := range c.pushers {
		p.c.doubtful = &breaking
	}
	r.start()
	c.begin()
	for round := 1; round <= 8 && !t.Failed(); round++ {
		c.ledger.next()
		c.pushFor(c.someSteps(), func() { breaking.Store(true); d.breakDown() })
		before := broken.seen.Load()
		for tries := 0; broken.seen.Load() < before+10 && tries < 50 && !t.Failed(); tries++ {
			c.pushFor(20, func() {})
		}
		if broken.seen.Load() == before {
			t.Error("nothing was refused on a disk that is gone")
		}
		if _, err := c.reader.do(t.Context(), call{method: "GET", path: "/healthz"}); err != nil {
			t.Errorf("the process does not live on: %v", err)
		}
		r.kill()
		d.mend()
		breaking.Store(false)
		r.start()
		c.check(0)
		if t.Failed() {
			t.Fatal(fmt.Sprint("in round ", round))
		}
	}
	c.end()
	c.check(0)
	if err := errors.Join(r.terminate(), r.fsck()); err != nil {
		t.Error(err)
	}
	wantSound(t, r.data(), true)
	t.Logf("%d requests were refused", broken.seen.Load())
}
