package e2e

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	stopWait     = 10 * time.Second // between SIGTERM and SIGKILL
	logTailBytes = 4 << 10          // of a log, shown when a test failed
)

// process is a program under way. It is stopped by its own id.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended; err is set before
	err  error
	once sync.Once
}

// start runs a program with its output in a file; it ends with the test at the
// latest, and, on Linux, with the test binary.
func start(t testing.TB, log, name string, args ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &process{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.SysProcAttr = sysProcAttr()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			// Before the stop, which says much and explains nothing.
			t.Logf("end of %s:\n%s", log, p.logTail())
		}
		p.stop()
	})
	return p, nil
}

// stop ends the process, by force if it does not listen, and waits for it.
func (p *process) stop() {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		select {
		case <-p.done:
		case <-time.After(stopWait):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	})
}

func (p *process) logTail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > logTailBytes {
		b = b[len(b)-logTailBytes:]
	}
	return strings.TrimSpace(string(b))
}
