package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// The marker says whose the bucket, or this folder of it, is. Two registries in
// one place would take each other's objects for garbage.
const (
	markerFile    = "gatehouse-store"
	markerText    = "This bucket, or this folder of it, belongs to Gatehouse.\n"
	markerOwner   = "Installation: "
	markerSizeMax = 1 << 10
)

func (s *Store) marker() string { return s.place.prefix + markerFile }

// probe makes the place the installation's and finds out whether the server, the
// bucket, the credentials and the right to write are there, and whether
// conditions on writes are honoured. Without an installation it does not ask
// whose the place is.
//
// CodeConflict: the place is another's. Where the server honours no conditions,
// two that begin within the same moment may both get it; the loser is told at
// its next start.
func (s *Store) probe(ctx context.Context, installation string) error {
	text := markerText
	if installation != "" {
		text += markerOwner + installation + "\n"
	}
	// Looked at first: a server that ignores conditions would overwrite it.
	there, err := s.owned(ctx, installation, text)
	if err != nil {
		return err
	}
	for range 2 { // the second must meet the first
		err := s.put(ctx, s.marker(), "", []byte(text), true)
		switch {
		case is(err, http.StatusPreconditionFailed):
			s.conditional = true
			_, err = s.owned(ctx, installation, text)
			return err
		case is(err, http.StatusNotImplemented), is(err, http.StatusBadRequest):
			if there && installation == "" {
				return nil
			}
			if err := s.put(ctx, s.marker(), "", []byte(text), false); err != nil {
				return err
			}
			_, err = s.owned(ctx, installation, text)
			return err
		case err != nil:
			return err
		}
	}
	_, err = s.owned(ctx, installation, text)
	return err
}

// owned reports whether there is a marker that lets the installation in. One that
// names nobody it makes the installation's.
func (s *Store) owned(ctx context.Context, installation, text string) (there bool, err error) {
	got, err := s.readMarker(ctx)
	if is(err, http.StatusNotFound) && !isCode(err, "NoSuchBucket") {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if installation == "" || got == text {
		return true, nil
	}
	if got != markerText {
		return false, s.foreign(got)
	}
	if err := s.put(ctx, s.marker(), "", []byte(text), false); err != nil {
		return false, err
	}
	if got, err = s.readMarker(ctx); err == nil && got != text {
		err = s.foreign(got)
	}
	return err == nil, err
}

// readMarker returns the marker's text, as far as one can be that long.
func (s *Store) readMarker(ctx context.Context) (string, error) {
	var b []byte
	err := s.try(ctx, func(ctx context.Context) error {
		r, err := s.read(ctx, s.marker())
		if err != nil {
			return err
		}
		defer r.Close()
		b, err = io.ReadAll(io.LimitReader(r, markerSizeMax))
		return err
	})
	return string(b), err
}

// errForeign is what errors of a place that is another's wrap.
var errForeign = errors.New("the marker names another installation")

func (s *Store) foreign(got string) error {
	whose := "something else"
	if strings.HasPrefix(got, markerText+markerOwner) {
		whose = "another installation of Gatehouse"
	}
	return gatehouse.Errorf(gatehouse.CodeConflict, "storage: bucket %s, prefix %q belongs to %s: %w", s.place.bucket, s.place.prefix, whose, errForeign).
		WithHint("give each installation a prefix of its own; if that one is gone, or its database was lost on purpose, remove the object %s from the bucket by hand", s.marker())
}
