package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// reloadEvery is how often a handshake looks whether the files changed.
	reloadEvery = time.Second
	// watchEvery is how often that happens when nobody comes.
	watchEvery = 30 * time.Second
	// pemSizeMax bounds a certificate file and a key file, in bytes.
	pemSizeMax = 1 << 20
)

// certificate is a certificate that is replaced while it is used. What its
// source yields is compared by content: file times lie, and Kubernetes swaps
// whole folders by a symbolic link.
type certificate struct {
	name    string // of the metrics' label
	read    func(now time.Time) (certPEM, keyPEM []byte, err error)
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics

	current atomic.Pointer[tls.Certificate]
	looked  atomic.Int64 // when, in nanoseconds since 1970

	mu        sync.Mutex // one looks at a time
	seen      []byte     // content that was last tried, good or bad
	complaint string     // the failure that was last logged
}

// openCertificate loads a certificate, which must be good the first time.
func (s *Server) openCertificate(name string, read func(now time.Time) (certPEM, keyPEM []byte, err error)) (*certificate, error) {
	c := &certificate{name: name, read: read, now: s.now, log: s.log, metrics: s.metrics}
	return c, c.load()
}

// fromFiles is the source of a certificate in two files.
func fromFiles(certFile, keyFile string) func(time.Time) ([]byte, []byte, error) {
	return func(time.Time) (certPEM, keyPEM []byte, err error) {
		if certPEM, err = readPEM(certFile); err != nil {
			return nil, nil, err
		}
		keyPEM, err = readPEM(keyFile)
		return certPEM, keyPEM, err
	}
}

// LoadKeyPair reads a certificate and its key from files as a server does.
func LoadKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	certPEM, keyPEM, err := fromFiles(certFile, keyFile)(time.Time{})
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// readPEM reads a regular file, or one that links lead to. Anything else is
// refused: a handshake would wait for the other end of a pipe.
func readPEM(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // opening a pipe waits too
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, pemSizeMax+1))
	if err == nil && len(b) > pemSizeMax {
		err = gatehouse.Errorf(gatehouse.CodeTooLarge, "%s is larger than %d bytes", path, pemSizeMax)
	}
	return b, err
}

// load puts what the source yields into force, if that is new and good.
func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	c.looked.Store(now.UnixNano())
	certPEM, keyPEM, err := c.read(now)
	if err != nil {
		return c.failed(err)
	}
	seen := bytes.Join([][]byte{certPEM, keyPEM}, []byte{0})
	if bytes.Equal(seen, c.seen) {
		return nil
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err == nil && now.After(pair.Leaf.NotAfter) && c.current.Load() != nil && now.Before(c.current.Load().Leaf.NotAfter) {
		err = errors.New("the new certificate has ended already")
	}
	if err != nil {
		return c.failed(err)
	}
	first := c.current.Swap(&pair) == nil
	c.seen, c.complaint = seen, ""
	c.metrics.certificateEnds.WithLabelValues(c.name).Set(float64(pair.Leaf.NotAfter.Unix()))
	c.metrics.certificateReloads.WithLabelValues(c.name, "error").Add(0)
	if !first {
		c.metrics.certificateReloads.WithLabelValues(c.name, "ok").Inc()
		c.log.Info("certificate changed", "certificate", c.name, "subject", subject(pair.Leaf), "until", pair.Leaf.NotAfter)
	}
	return nil
}

// failed tells of a failure once; who writes the two files one after the other
// makes one that is over a moment later.
func (c *certificate) failed(err error) error {
	if c.current.Load() != nil && err.Error() != c.complaint {
		c.complaint = err.Error()
		c.metrics.certificateReloads.WithLabelValues(c.name, "error").Inc()
		c.log.Error("certificate not changed, the old one stays", "certificate", c.name, "error", err)
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the TLS certificate of %s: %w", c.name, err)
}

func subject(leaf *x509.Certificate) string {
	if len(leaf.DNSNames) > 0 {
		return leaf.DNSNames[0]
	}
	return leaf.Subject.String()
}

// get implements tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	last := c.looked.Load()
	if now := c.now().UnixNano(); now-last >= int64(reloadEvery) && c.looked.CompareAndSwap(last, now) {
		_ = c.load() // which tells; the old one serves
	}
	return c.current.Load(), nil
}

// watch looks when nobody else does, so that a broken file is told in time and
// the metric is right.
func (c *certificate) watch(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
			_ = c.load()
		}
	}
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
}
