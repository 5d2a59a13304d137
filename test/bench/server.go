package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// adminPassword is of servers that live for one measurement, on loopback.
const adminPassword = "bench-bench-bench"

// server is a running `gatehouse serve`.
type server struct {
	url       string // http://127.0.0.1:PORT
	admission string // https://127.0.0.1:PORT
	data      string
	took      time.Duration // from exec to the first answer
	cmd       *exec.Cmd
	done      chan error
	output    *bytes.Buffer // read only after done
}

// startServer starts the server on a data directory and waits for its first
// answer.
func startServer(ctx context.Context, binary, data string, flags ...string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	admission := l.Addr().String()
	l.Close()
	ready := data + ".ready"
	defer os.Remove(ready)
	s := &server{admission: "https://" + admission, data: data, done: make(chan error, 1), output: &bytes.Buffer{}}
	s.cmd = exec.CommandContext(ctx, binary, append([]string{"serve", "--listen", "127.0.0.1:0",
		"--admission-listen", admission, "--data", data, "--ready-file", ready}, flags...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	s.cmd.Env = append(os.Environ(), "GATEHOUSE_ADMIN_PASSWORD="+adminPassword)
	start := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.done <- s.cmd.Wait() }()
	if err := s.firstAnswer(ctx, ready, start); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *server) firstAnswer(ctx context.Context, ready string, start time.Time) error {
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	for time.Since(start) < startWait {
		select {
		case err := <-s.done:
			s.done <- err
			return errors.New("the server ended by itself")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
		base, err := os.ReadFile(ready)
		if err != nil || len(base) == 0 {
			continue
		}
		s.url = strings.TrimSpace(string(base))
		resp, err := client.Get(s.url + "/readyz")
		if err != nil {
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			s.took = time.Since(start)
			return nil
		}
	}
	return fmt.Errorf("no answer after %s", startWait)
}

// target is the server as the load generator sees it.
func (s *server) target() *target {
	return &target{name: "gatehouse", addr: strings.TrimPrefix(s.url, "http://"), pid: s.cmd.Process.Pid, authorize: basic}
}

// stop ends the server and waits for it; not to end well is an error that
// holds what it said.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case err := <-s.done:
		if err != nil {
			return fmt.Errorf("gatehouse serve: %w: %s", err, bytes.TrimSpace(s.output.Bytes()))
		}
		return nil
	case <-time.After(startWait):
		_ = s.cmd.Process.Kill()
		<-s.done
		return errors.New("the server did not stop")
	}
}

// admissionCA is the PEM file of the CA behind the webhook's certificate.
func (s *server) admissionCA() ([]byte, error) {
	return os.ReadFile(filepath.Join(s.data, "keys", "admission-ca.crt"))
}
