package server

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// accessMessage is the message of an access log's line.
const accessMessage = "request done"

const (
	// logDelay is how long a line of the access log may wait for others, so
	// that a burst of requests is a few writes; everything else is written at
	// once, with what waits before it.
	logDelay   = 50 * time.Millisecond
	logWaiting = 64 << 10 // bytes that wait at most
)

// NewLog makes the log of a server in the form and from the level on that cfg
// names. flush writes what waits; call it before the process ends.
func NewLog(w io.Writer, cfg config.Config) (log *slog.Logger, flush func()) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	out := &logWriter{w: w}
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(out, opts)
	if cfg.LogFormat == "json" {
		h = slog.NewJSONHandler(out, opts)
	}
	return slog.New(promptLog{h, out}), out.flush
}

// promptLog writes everything at once but lines of the access log.
type promptLog struct {
	slog.Handler
	out *logWriter
}

func (h promptLog) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Message != accessMessage {
		h.out.flush()
	}
	return err
}

func (h promptLog) WithAttrs(a []slog.Attr) slog.Handler {
	return promptLog{h.Handler.WithAttrs(a), h.out}
}

func (h promptLog) WithGroup(name string) slog.Handler {
	return promptLog{h.Handler.WithGroup(name), h.out}
}

// logWriter collects lines. It is safe for concurrent use.
type logWriter struct {
	mu      sync.Mutex
	w       io.Writer
	waiting []byte
}

// Write implements io.Writer.
func (l *logWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		time.AfterFunc(logDelay, l.flush)
	}
	l.waiting = append(l.waiting, line...)
	if len(l.waiting) >= logWaiting {
		l.write()
	}
	return len(line), nil
}

func (l *logWriter) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write()
}

// write has l.mu. A log that cannot be written has nobody to be told to.
func (l *logWriter) write() {
	if len(l.waiting) > 0 {
		_, _ = l.w.Write(l.waiting)
		l.waiting = l.waiting[:0]
	}
}
