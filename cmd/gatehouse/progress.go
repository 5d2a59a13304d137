package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// progress tells what is going on, to people.
func (r *scanRun) progress(format string, args ...any) {
	if !r.app.quiet && !r.opts.noProgress {
		fmt.Fprintln(r.app.stderr, report.PrintableLines(fmt.Sprintf(format, args...)))
	}
}

// bar shows how far the layers of one image are: on a terminal one line that
// changes, elsewhere (CI) one line per layer that is read.
type bar struct {
	w     io.Writer // nil: silent
	live  bool
	total int64 // bytes of all layers as stored, as their descriptors say

	mu     sync.Mutex
	layers int
	begun  int
	done   int64
	shown  time.Time
	width  int // of what is on the line
}

const (
	barEvery = 100 * time.Millisecond
	barWidth = 24
	// columnsUsual is the width of a terminal that does not say it.
	columnsUsual = 80
)

func (r *scanRun) newBar(layers []fetch.Layer) *bar {
	b := &bar{layers: len(layers)}
	if r.app.quiet || r.opts.noProgress {
		return b
	}
	b.w = r.app.stderr
	for _, l := range layers {
		b.total += max(l.Size, 0)
	}
	f, ok := r.app.stderr.(*os.File)
	b.live = ok && term.IsTerminal(int(f.Fd())) && r.app.getenv("CI") == "" && r.app.getenv("TERM") != "dumb" && !r.app.verbose
	return b
}

// known counts a layer that the cache has.
func (b *bar) known(l fetch.Layer) { b.add(max(l.Size, 0)) }

// watch counts the bytes of a layer as they are read.
func (b *bar) watch(i int, l fetch.Layer) fetch.Layer {
	open := l.Open
	l.Open = func(ctx context.Context) (io.ReadCloser, error) {
		b.mu.Lock()
		b.begun++
		if b.w != nil && !b.live {
			fmt.Fprintf(b.w, "layer %d of %d: %s\n", i+1, b.layers, l.Digest)
		}
		b.mu.Unlock()
		rc, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return &barReader{ReadCloser: rc, bar: b}, nil
	}
	return l
}

type barReader struct {
	io.ReadCloser
	bar *bar
}

func (c *barReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bar.add(int64(n))
	return n, err
}

func (b *bar) add(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done += n; b.live && time.Since(b.shown) >= barEvery {
		b.shown = time.Now()
		b.draw()
	}
}

func (b *bar) draw() {
	share := 1.0
	if b.total > 0 {
		share = min(float64(b.done)/float64(b.total), 1)
	}
	full := int(share * barWidth)
	text := fmt.Sprintf("reading layers [%s%s] %3.0f %%  %.1f of %.1f MiB",
		strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), share*100, float64(b.done)/(1<<20), float64(b.total)/(1<<20))
	if len(text) >= b.columns() { // a line that wraps cannot be written again
		text = fmt.Sprintf("%3.0f %%", share*100)
	}
	pad := strings.Repeat(" ", max(b.width-len(text), 0))
	b.width = len(text)
	fmt.Fprintf(b.w, "\r%s%s", text, pad)
}

// columns is how wide the terminal is now; it may change meanwhile.
func (b *bar) columns() int {
	if f, ok := b.w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return n
		}
	}
	return columnsUsual
}

// end clears the line.
func (b *bar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.live && b.width > 0 {
		fmt.Fprintf(b.w, "\r%s\r", strings.Repeat(" ", b.width))
		b.width = 0
	}
	b.live = false
}
