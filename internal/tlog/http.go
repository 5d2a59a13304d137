package tlog

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/gatehouse-dev/gatehouse"
)

// HTTP reads a log from a server.
type HTTP struct {
	Base   string // the URL that tiles are below
	Client *http.Client
}

// What is read of an answer at most, in bytes.
const (
	checkpointMax = 64 << 10
	bundleMax     = tileWidth * (2 + EntryMax)
)

// Checkpoint implements [Source]. Nothing that a cache keeps is taken.
func (h HTTP) Checkpoint(ctx context.Context) ([]byte, error) {
	signed, _, err := h.CheckpointAt(ctx)
	return signed, err
}

// CheckpointAt implements [Aged]: the time is what the server says.
func (h HTTP) CheckpointAt(ctx context.Context) (signed []byte, at time.Time, err error) {
	signed, header, err := h.get(ctx, "checkpoint", checkpointMax)
	if err != nil {
		return nil, at, err
	}
	at, _ = http.ParseTime(header.Get("Last-Modified")) // the zero time where it says nothing
	return signed, at, nil
}

// Tile implements [Source]. Where a partial tile is not kept any more, it is cut
// from the full one.
func (h HTTP) Tile(ctx context.Context, t Tile) ([]byte, error) {
	return readTile(t, func(t Tile) ([]byte, error) {
		most := bundleMax
		if t.Level != EntriesLevel {
			most = tileWidth * merkle.HashSize
		}
		data, _, err := h.get(ctx, t.Path(), most)
		return data, err
	})
}

func (h HTTP) get(ctx context.Context, path string, most int) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(h.Base, "/")+"/"+path, nil)
	if err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no URL of a log: %w", h.Base, err)
	}
	if path == "checkpoint" {
		req.Header.Set("Cache-Control", "no-cache")
	}
	res, err := h.Client.Do(req)
	if err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't reach the log: %w", err).WithHint("is the server running, and is this its URL?")
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotFound:
		return nil, nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no %s at %s", path, h.Base).WithHint("is this the URL of a log? A server with sigstore: true has one at /log")
	case res.StatusCode != http.StatusOK:
		return nil, nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the log answered %s for %s", res.Status, path)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, int64(most)+1))
	if err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the log's answer broke off: %w", err)
	}
	if len(data) > most {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the log's %s has more than %d bytes", path, most)
	}
	return data, res.Header, nil
}

// readTile reads a tile of the width that is asked for, from the full one where
// there is no such partial tile.
func readTile(t Tile, read func(Tile) ([]byte, error)) ([]byte, error) {
	data, err := read(t)
	if !t.Full() && gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		whole := t
		whole.Width = tileWidth
		full, again := read(whole)
		if again != nil {
			return nil, err // of what was asked for
		}
		if t.Level != EntriesLevel {
			return cutTile(full, t)
		}
		entries, err := parseBundle(full, tileWidth)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries[:t.Width] {
			data = appendEntry(data, entry)
		}
		return data, nil
	}
	if err == nil && t.Level != EntriesLevel && len(data) != t.Width*merkle.HashSize {
		err = gatehouse.Errorf(gatehouse.CodeDenied, "%s has %d bytes", t.Path(), len(data))
	}
	return data, err
}
