package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

const (
	// loginAge is how old credentials of the cluster may be before they are read again:
	// the token of a pod is another one every hour, and it is a file.
	loginAge = time.Minute
	// loginPause is how long they are used at least, even when the cluster refuses them.
	loginPause = 5 * time.Second
	// watchStall is the longest silence of a watch: the API server ends one after ten
	// minutes at most. A connection that is dead is found out sooner.
	watchStall    = 12 * time.Minute
	watchPing     = 30 * time.Second
	clusterHeader = time.Minute
)

// clusterClient is a client of the cluster with what has to be closed.
type clusterClient struct {
	*kube.Client
	login *clusterLogin
}

// openClient makes a client of the cluster that the settings name. It asks it nothing.
// Errors: CodeInvalid.
func openClient(ctx context.Context, cfg config.Config, getenv func(string) string, log *slog.Logger) (*clusterClient, error) {
	l := &clusterLogin{path: cfg.Kubeconfig, getenv: getenv, now: time.Now}
	now, err := l.current(ctx)
	if err != nil {
		return nil, err
	}
	client, err := kube.New(kube.Options{URL: now.cluster.URL, Transport: l, UserAgent: "gatehouse", Log: log})
	return &clusterClient{client, l}, err
}

func (c *clusterClient) close() error { return c.login.close() }

// clusterLogin sends requests to a cluster with the credentials of a kubeconfig or a
// pod, which may change at any time.
type clusterLogin struct {
	path   string
	getenv func(string) string
	now    func() time.Time

	mu     sync.Mutex // held while credentials are read: others wait for the same
	held   *dialled
	readAt time.Time
	stale  bool // the cluster did not take them
}

// dialled is a cluster and the way to it.
type dialled struct {
	cluster keyref.Cluster
	egress  *egress.Egress
}

// current returns the way to the cluster as it is now. Credentials that cannot be read
// leave those before in use.
func (l *clusterLogin) current(ctx context.Context) (*dialled, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if age := now.Sub(l.readAt); l.held != nil && (age < loginPause || age < loginAge && !l.stale) {
		return l.held, nil
	}
	c, err := keyref.Configured(ctx, l.path, keyref.Options{Local: true, Getenv: l.getenv})
	if err != nil {
		if l.held != nil {
			return l.held, nil
		}
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "kubeconfig: %w", err).WithHint("%s", gatehouse.HintOf(err))
	}
	l.readAt, l.stale = now, false
	if l.held != nil && reflect.DeepEqual(l.held.cluster, *c) {
		return l.held, nil
	}
	fresh, err := dialCluster(*c, egress.ProxiesFrom(l.getenv))
	if err != nil {
		return nil, err
	}
	if l.held != nil {
		l.held.egress.Close() // what runs on it goes on
	}
	l.held = fresh
	return fresh, nil
}

func dialCluster(c keyref.Cluster, proxies egress.Proxies) (*dialled, error) {
	cfg := egress.Config{Proxies: proxies, HeaderTimeout: clusterHeader, StallTimeout: watchStall, PingAfter: watchPing}
	if c.Unverified {
		cfg.UnverifiedTLS = []string{"*"}
	}
	way, err := c.Way(cfg)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "kubeconfig: %w", err)
	}
	return &dialled{c, way}, nil
}

// RoundTrip implements http.RoundTripper.
func (l *clusterLogin) RoundTrip(req *http.Request) (*http.Response, error) {
	now, err := l.current(req.Context())
	if err != nil {
		return nil, errors.Join(err, closeBody(req))
	}
	req = req.Clone(req.Context())
	now.cluster.Authorize(req)
	resp, err := now.egress.Transport().RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		l.mu.Lock()
		l.stale = l.stale || l.held == now // the next request reads them again
		l.mu.Unlock()
	}
	return resp, err
}

func closeBody(req *http.Request) error {
	if req.Body == nil {
		return nil
	}
	return req.Body.Close()
}

func (l *clusterLogin) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		l.held.egress.Close()
	}
	return nil
}
