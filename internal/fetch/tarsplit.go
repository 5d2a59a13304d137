package fetch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/gatehouse-dev/gatehouse"
)

// tarSplit puts a tar together from its headers and paddings, which a tar-split
// file keeps (github.com/vbatts/tar-split), and the files of a directory. What
// comes out is checked against its digest by whoever reads it.
type tarSplit struct {
	ctx   context.Context
	split *os.File
	gz    *gzip.Reader
	in    *json.Decoder
	root  *os.Root // the files
	next  io.Reader
	file  io.Closer // behind next
	done  bool
}

// splitEntry is one line of a tar-split file: the bytes of a segment, or the
// name of a file whose content follows here.
type splitEntry struct {
	Type    int    `json:"type"`
	Name    string `json:"name"`
	NameRaw []byte `json:"name_raw"`
	Size    int64  `json:"size"`
	Payload []byte `json:"payload"`
}

const (
	splitFile    = 1
	splitSegment = 2
	// splitEntryMax bounds one entry: segments hold headers and paddings, and
	// what of them was written in a row.
	splitEntryMax = 256 << 20
)

// newTarSplit takes split and root over: closing it closes them.
func newTarSplit(ctx context.Context, split *os.File, root *os.Root) (io.ReadCloser, error) {
	gz, err := gzip.NewReader(bufio.NewReaderSize(split, 64<<10))
	if err != nil {
		split.Close()
		root.Close()
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not gzip: %w", split.Name(), err)
	}
	t := &tarSplit{ctx: ctx, split: split, gz: gz, root: root}
	t.in = json.NewDecoder(&perEntry{r: gz, t: t})
	return t, nil
}

// perEntry fails when more is read for one entry than one may have: a decoder
// of JSON reads a value whole, however long it is.
type perEntry struct {
	r    io.Reader
	t    *tarSplit
	seen int64
}

func (p *perEntry) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if p.seen += int64(n); p.t.in != nil && p.seen-p.t.in.InputOffset() > splitEntryMax {
		return n, gatehouse.Errorf(gatehouse.CodeTooLarge, "an entry of %s has more than %d bytes", p.t.split.Name(), splitEntryMax)
	}
	return n, err
}

func (t *tarSplit) Read(b []byte) (int, error) {
	for {
		if t.next == nil {
			if err := t.advance(); err != nil {
				return 0, err
			}
		}
		n, err := t.next.Read(b)
		if err == io.EOF {
			err = t.endFile()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// advance opens what the next entry names.
func (t *tarSplit) advance() error {
	if t.done {
		return io.EOF
	}
	if err := t.ctx.Err(); err != nil {
		return err
	}
	var e splitEntry
	if err := t.in.Decode(&e); err == io.EOF {
		t.done = true
		return io.EOF
	} else if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s cannot be read: %w", t.split.Name(), err)
	}
	switch {
	case e.Type == splitSegment:
		t.next = strings.NewReader(string(e.Payload))
	case e.Type == splitFile && e.Size > 0:
		return t.open(e)
	case e.Type != splitFile:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s has an entry of the unknown type %d", t.split.Name(), e.Type)
	}
	if t.next == nil {
		t.next = strings.NewReader("")
	}
	return nil
}

func (t *tarSplit) open(e splitEntry) error {
	name := e.Name
	if len(e.NameRaw) > 0 {
		name = string(e.NameRaw)
	}
	f, size, err := dirFiles{t.root}.open(cleanName(name))
	if err == nil && size < e.Size {
		err = errors.Join(errors.New("it is shorter than it was"), f.Close())
	}
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the store's file %s cannot be read: %w", clip(name), err).
			WithHint("a store of containers that run without root can be read with `podman unshare gatehouse …`")
	}
	t.file, t.next = f, io.LimitReader(f, e.Size)
	return nil
}

func (t *tarSplit) endFile() error {
	t.next = nil
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}

func (t *tarSplit) Close() error {
	return errors.Join(t.endFile(), t.gz.Close(), t.split.Close(), t.root.Close())
}
