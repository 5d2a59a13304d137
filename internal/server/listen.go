package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
)

// cutTime is how long handlers get to save what they have after their
// connections were cut at the end of the drain.
const cutTime = 10 * time.Second

// listen opens every address before anything is served.
func (s *Server) listen() (err error) {
	if s.main, err = s.open("main", s.cfg.Listen, "--listen"); err != nil {
		return err
	}
	if s.cfg.TLSCert != "" {
		cert, err := s.openCertificate("main", fromFiles(s.cfg.TLSCert, s.cfg.TLSKey))
		if err != nil {
			return err
		}
		s.certs = append(s.certs, cert)
		s.main = tls.NewListener(s.main, cert.config())
	}
	own := newHosts(s.cfg.Hostnames, s.main.Addr().String())
	s.facts.hosts, s.policies.names = own, own.policyNames()
	if s.cfg.MetricsListen != "" {
		if s.monitor, err = s.open("metrics", s.cfg.MetricsListen, "--metrics-listen"); err != nil {
			return err
		}
	}
	if s.cfg.AdmissionListen == "" {
		return nil
	}
	cert, err := s.admissionCertificate()
	if err != nil {
		return err
	}
	s.certs = append(s.certs, cert)
	l, err := s.open("admission", s.cfg.AdmissionListen, "--admission-listen")
	if err != nil {
		return err
	}
	s.webhook = tls.NewListener(l, cert.config())
	return nil
}

func (s *Server) open(name, addr, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeConflict, "couldn't listen: %w", err).
			WithHint("choose another address with %s, or port 0 for any free one", flag)
	}
	s.stop = append(s.stop, ignoreClosed(l.Close))
	return newGate(l, s.cfg.MaxConnections), nil
}

// admissionCertificate is the one that was given, or our own, which is made
// anew before it ends.
func (s *Server) admissionCertificate() (*certificate, error) {
	if s.cfg.AdmissionTLSCert != "" {
		return s.openCertificate("admission", fromFiles(s.cfg.AdmissionTLSCert, s.cfg.AdmissionTLSKey))
	}
	if s.kubernetes.serves() {
		c, err := s.openCertificate("admission", s.kubernetes.certificate(time.Now))
		s.kubernetes.served = c
		return c, err
	}
	dir, names := filepath.Join(s.cfg.Data, "keys"), append([]string{"localhost", "127.0.0.1", "::1"}, s.cfg.AdmissionNames...)
	return s.openCertificate("admission", func(now time.Time) ([]byte, []byte, error) {
		c, err := loadAdmissionCert(dir, names, now)
		if err == nil && s.admission.CAPEM == nil {
			s.admission = c // of the first call, before anything is served
		}
		return c.CertPEM, c.KeyPEM, err
	})
}

// serve runs one HTTP server until ctx ends and its requests are done.
func (s *Server) serve(ctx context.Context, g *errgroup.Group, name string, l net.Listener, h http.Handler) {
	if l == nil {
		return
	}
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	connections := s.metrics.connections.WithLabelValues(name)
	perAddress := crowd{max: connectionsMax}
	srv := &http.Server{
		Handler: s.leaving(impatient(h)), HTTP2: &http.HTTP2Config{WriteByteTimeout: patience},
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerMax,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return base },
		ConnState: func(conn net.Conn, state http.ConnState) {
			perAddress.state(conn, state)
			switch state {
			case http.StateNew:
				connections.Inc()
			case http.StateClosed, http.StateHijacked:
				connections.Dec()
			}
		},
	}
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		defer cut()
		<-ctx.Done()
		s.drain(srv, name, cut)
		return nil
	})
}

// leaving has clients take another connection for their next request while the server
// is not ready: one that it closes at the end may carry a request by then, which the API
// server does not send again.
func (s *Server) leaving(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.ready.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// drain ends srv: not ready at first, then no new connections, then no
// connections. What is cut off has a moment to save what it has.
func (s *Server) drain(srv *http.Server, name string, cut context.CancelFunc) {
	if s.ready.Swap(false) {
		s.log.Info("drain start", "delay", s.cfg.DrainDelay.String(), "time", s.cfg.DrainTime.String())
	}
	time.Sleep(s.cfg.DrainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainTime)
	defer cancel()
	err := srv.Shutdown(ctx)
	if err == nil {
		return
	}
	s.log.Warn("drain took too long, requests are cut off", "listener", name, "error", err)
	cut()
	_ = srv.Close()
	for end := time.Now().Add(cutTime); s.flights.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.log.Warn("requests did not end", "listener", name)
			return
		}
	}
}

// gate is a listener that has at most so many connections open. It hands on
// the connection itself, so that sendfile works, and takes it back by way of
// its Close.
type gate struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func newGate(l net.Listener, max int) net.Listener {
	if max <= 0 {
		return l
	}
	return &gate{Listener: l, slots: make(chan struct{}, max), done: make(chan struct{})}
}

// Accept waits for a slot, then for a connection.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case g.slots <- struct{}{}:
	case <-g.done:
		return nil, net.ErrClosed
	}
	c, err := g.Listener.Accept()
	if err != nil {
		<-g.slots
		return nil, err
	}
	release := sync.OnceFunc(func() { <-g.slots })
	if tcp, ok := c.(*net.TCPConn); ok {
		return &gatedConn{tcp, release}, nil
	}
	release()
	return c, nil
}

// Close implements net.Listener.
func (g *gate) Close() error {
	g.once.Do(func() { close(g.done) })
	return g.Listener.Close()
}

// gatedConn has all methods of a TCP connection, ReadFrom among them.
type gatedConn struct {
	*net.TCPConn
	release func()
}

// Close implements net.Conn.
func (c *gatedConn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}
