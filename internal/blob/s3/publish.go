package s3

import (
	"context"
	"errors"
	"net/http"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

// Publish implements [blob.Store]. An object that was written in one request is
// there already. Otherwise the upload that the state names is completed: that
// works once, so that a repetition after a lost answer looks whether the object
// is the one that it became.
func (s *Store) Publish(ctx context.Context, key string, size int64, raw []byte) error {
	if err := errors.Join(ctx.Err(), blob.CheckKeys(key)); err != nil {
		return err
	}
	if raw == nil {
		return blob.ErrNotFound(key)
	}
	st, err := decodeState(raw)
	if err != nil {
		return err
	}
	switch {
	case st.Size != size:
		return blob.ErrNotFound(key)
	case st.Upload == "":
		return nil
	}
	err = s.complete(ctx, key, st)
	if is(err, http.StatusNotFound) || isCode(err, "NoSuchUpload", "InvalidPart") {
		ours, serr := s.isOurs(ctx, s.name(key), st.Token, size)
		if err = serr; err == nil && !ours {
			return blob.ErrNotFound(key)
		}
	}
	if err == nil {
		err = s.sweep(ctx, []string{key})
	}
	return s.fail(ctx, err, key)
}

// complete turns the parts and the tail of st into the object.
func (s *Store) complete(ctx context.Context, key string, st *state) error {
	var parts []minio.CompletePart
	for i, etag := range st.Parts {
		parts = append(parts, minio.CompletePart{PartNumber: i + 1, ETag: etag})
	}
	if st.Tail != "" || len(parts) == 0 {
		etag, err := s.lastPart(ctx, key, st, len(parts)+1)
		if err != nil {
			return err
		}
		parts = append(parts, minio.CompletePart{PartNumber: len(parts) + 1, ETag: etag})
	}
	return s.try(ctx, func(ctx context.Context) error {
		_, err := s.core.CompleteMultipartUpload(ctx, s.place.bucket, s.name(key), st.Upload, parts, minio.PutObjectOptions{})
		return err
	})
}

// lastPart makes a part of the tail: inside of the server where that can do it.
func (s *Store) lastPart(ctx context.Context, key string, st *state, number int) (etag string, err error) {
	if st.Tail == "" {
		return s.putPart(ctx, key, st.Upload, number, nil)
	}
	bucket, tail := s.place.bucket, s.tail(key, st.Tail)
	err = s.try(ctx, func(ctx context.Context) error {
		p, err := s.core.CopyObjectPart(ctx, bucket, tail, bucket, s.name(key), st.Upload, number, 0, -1, nil)
		etag = p.ETag
		return err
	})
	if !is(err, http.StatusNotImplemented) {
		return etag, err
	}
	b, err := s.readAll(ctx, tail, make([]byte, st.rest()), st.Sum)
	if err != nil {
		return "", err
	}
	return s.putPart(ctx, key, st.Upload, number, b)
}
