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

// Process is a program under way. It is stopped by its own id.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended; err is set before
	err  error
	once sync.Once

	killed bool // its end says nothing
}

// Program is what Start runs.
type Program struct {
	Name string // path
	Args []string
	Env  []string // NAME=VALUE, besides those of the test binary
	Log  string   // file that its output is added to
}

// Start runs a program; it ends with the test at the latest, and, on Linux, with
// the test binary.
func Start(t testing.TB, program Program) (*Process, error) {
	file, err := os.OpenFile(program.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &Process{cmd: exec.Command(program.Name, program.Args...), log: program.Log, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), program.Env...)
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
		if t.Failed() && !p.killed {
			// Before the stop, which says much and explains nothing.
			t.Logf("errors in %s:\n%s\nits end:\n%s", p.log, p.logErrors(), p.LogTail())
		}
		p.Stop()
	})
	return p, nil
}

// logErrors are the first lines of the log that tell of an error.
func (p *Process) logErrors() string {
	const linesMax = 20
	b, _ := os.ReadFile(p.log) // without it there is nothing to tell
	var out []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "level=ERROR") && len(out) < linesMax {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	return strings.Join(out, "\n")
}

// start is Start with nothing unusual.
func start(t testing.TB, log, name string, args ...string) (*Process, error) {
	return Start(t, Program{Name: name, Args: args, Log: log})
}

// ID is the process id.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how it ended, nil for exit 0. Call it after Done.
func (p *Process) Err() error { return p.err }

// Kill ends the process at once (SIGKILL) and waits for it.
func (p *Process) Kill() {
	p.once.Do(func() {
		p.killed = true
		_ = p.cmd.Process.Kill() // it may have ended already
		<-p.done
	})
}

// Terminate asks the process to end (SIGTERM).
func (p *Process) Terminate() error { return p.cmd.Process.Signal(syscall.SIGTERM) }

// Stop ends the process, by force if it does not listen, and waits for it.
func (p *Process) Stop() {
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

// LogTail is the end of what it wrote.
func (p *Process) LogTail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > logTailBytes {
		b = b[len(b)-logTailBytes:]
	}
	return strings.TrimSpace(string(b))
}
