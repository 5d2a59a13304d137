package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/gatehouse-dev/gatehouse"
)

// healthConnections bounds the connections to the operator's health at a time.
const healthConnections = 64

// listenHealth opens the operator's listener for probes; nil where addr is empty.
// Errors: CodeConflict.
func listenHealth(ctx context.Context, addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeConflict, "couldn't listen: %w", err).
			WithHint("choose another address with --metrics-listen, or port 0 for any free one")
	}
	return newGate(l, healthConnections), nil
}

// serveHealth answers probes on l until ctx ends: /healthz as long as the process runs,
// /readyz while ready says nothing.
func serveHealth(ctx context.Context, l net.Listener, ready func() error) error {
	if l == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, "the cluster has not been read yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerMax}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // probes hold nothing that could be lost
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
