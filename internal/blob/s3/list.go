package s3

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

// List implements [blob.Store]. A key under which something is being written,
// or was by a sitting that crashed, is listed as unpublished, with the most bytes
// that any of its uploads holds; where its object is there too, as published.
func (s *Store) List(ctx context.Context, after string, n int) ([]blob.Object, error) {
	if n <= 0 {
		return nil, ctx.Err()
	}
	objects, err := s.page(ctx, "blobs/", after, n)
	if err != nil {
		return nil, s.fail(ctx, err, after)
	}
	tails, err := s.page(ctx, "tails/", after, n)
	if err != nil {
		return nil, s.fail(ctx, err, after)
	}
	uploads, err := s.uploads(ctx, after, n)
	if err != nil {
		return nil, s.fail(ctx, err, after)
	}
	// Each of the three holds the first n of its keys, so all of them together
	// hold the first n of all.
	keys := slices.Sorted(maps.Keys(objects))
	keys = slices.AppendSeq(keys, maps.Keys(tails))
	keys = slices.AppendSeq(keys, maps.Keys(uploads))
	slices.Sort(keys)
	keys = slices.Compact(keys)
	out := make([]blob.Object, 0, min(n, len(keys)))
	for _, key := range keys[:min(n, len(keys))] {
		o, published := objects[key]
		o.Key, o.Published = key, published
		parts, err := s.durable(ctx, uploads[key])
		if err != nil {
			return nil, s.fail(ctx, err, key)
		}
		o.Size = max(o.Size, parts+tails[key].Size)
		for _, t := range []time.Time{tails[key].ChangedAt, newest(uploads[key])} {
			if t.After(o.ChangedAt) {
				o.ChangedAt = t
			}
		}
		out = append(out, o)
	}
	return out, nil
}

// page lists the first n keys under folder: the size is that of the largest
// object of a key, the time that of the newest.
func (s *Store) page(ctx context.Context, folder, after string, n int) (found map[string]blob.Object, err error) {
	found = map[string]blob.Object{}
	err = s.eachObject(ctx, folder, "", after, func(o minio.ObjectInfo, key string) bool {
		got, known := found[key]
		if !known && len(found) == n {
			return false
		}
		got.Size = max(got.Size, o.Size)
		if o.LastModified.After(got.ChangedAt) {
			got.ChangedAt = o.LastModified
		}
		found[key] = got
		return true
	})
	return found, err
}

// uploads lists the multipart uploads of the first n keys that have any.
func (s *Store) uploads(ctx context.Context, after string, n int) (map[string][]minio.ObjectMultipartInfo, error) {
	found := map[string][]minio.ObjectMultipartInfo{}
	err := s.eachUpload(ctx, "", after, func(u minio.ObjectMultipartInfo, key string) (bool, error) {
		if found[key] == nil && len(found) == n {
			return false, nil
		}
		found[key] = append(found[key], u)
		return true, nil
	})
	return found, err
}

// durable is the most bytes that the parts of one of the uploads have.
func (s *Store) durable(ctx context.Context, uploads []minio.ObjectMultipartInfo) (most int64, err error) {
	for _, u := range uploads {
		size, marker := int64(0), 0
		for {
			var page minio.ListObjectPartsResult
			err := s.try(ctx, func(ctx context.Context) (err error) {
				page, err = s.core.ListObjectParts(ctx, s.place.bucket, u.Key, u.UploadID, marker, listPage)
				return err
			})
			if isCode(err, "NoSuchUpload") {
				break // it has ended since
			}
			if err != nil {
				return 0, err
			}
			for _, p := range page.ObjectParts {
				size += p.Size
			}
			if !page.IsTruncated || page.NextPartNumberMarker <= marker {
				break
			}
			marker = page.NextPartNumberMarker
		}
		most = max(most, size)
	}
	return most, errors.Join(ctx.Err())
}

func newest(uploads []minio.ObjectMultipartInfo) (t time.Time) {
	for _, u := range uploads {
		if u.Initiated.After(t) {
			t = u.Initiated
		}
	}
	return t
}
