package s3

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

// Delete implements [blob.Store]: one request per 1000 objects, and two that
// list what is being written, since only there more than the object can lie.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := errors.Join(ctx.Err(), blob.CheckKeys(keys...)); err != nil || len(keys) == 0 {
		return err
	}
	if err := s.sweep(ctx, keys); err != nil {
		return s.fail(ctx, err, keys[0])
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = s.name(key)
	}
	return s.fail(ctx, s.remove(ctx, names), keys[0])
}

// sweep removes the tails and the unfinished multipart uploads of keys.
func (s *Store) sweep(ctx context.Context, keys []string) error {
	prefix, wanted := commonPrefix(keys), map[string]bool{}
	for _, key := range keys {
		wanted[key] = true
	}
	err := s.eachUpload(ctx, prefix, "", func(u minio.ObjectMultipartInfo, key string) (bool, error) {
		if !wanted[key] {
			return true, nil
		}
		err := s.try(ctx, func(ctx context.Context) error {
			return s.core.AbortMultipartUpload(ctx, s.place.bucket, u.Key, u.UploadID)
		})
		if isCode(err, "NoSuchUpload") { // or by the first attempt
			err = nil
		}
		return true, err
	})
	if err != nil {
		return err
	}
	var tails []string
	err = s.eachObject(ctx, "tails/", prefix, "", func(o minio.ObjectInfo, key string) bool {
		if wanted[key] {
			tails = append(tails, o.Key)
		}
		return true
	})
	if err != nil {
		return err
	}
	return s.remove(ctx, tails)
}

func (s *Store) remove(ctx context.Context, names []string) error {
	for batch := range slices.Chunk(names, deleteBatch) {
		err := s.try(ctx, func(ctx context.Context) error {
			results, err := s.core.RemoveObjectsWithIter(ctx, s.place.bucket, func(yield func(minio.ObjectInfo) bool) {
				for _, name := range batch {
					if !yield(minio.ObjectInfo{Key: name}) {
						return
					}
				}
			}, minio.RemoveObjectsOptions{})
			if err != nil {
				return err
			}
			for r := range results {
				if r.Err != nil && !isCode(r.Err, "NoSuchKey") {
					return r.Err
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachObject calls f with the objects under folder whose keys begin with prefix
// and come after the given one, in order, until f returns false.
func (s *Store) eachObject(ctx context.Context, folder, prefix, after string, f func(o minio.ObjectInfo, key string) bool) error {
	opts := minio.ListObjectsOptions{Prefix: s.place.prefix + folder + prefix, Recursive: true, MaxKeys: listPage}
	if after != "" {
		opts.StartAfter = s.place.prefix + folder + after + "/" // behind its tails: '.' is less than '/'
	}
	for {
		var page []minio.ObjectInfo
		err := s.try(ctx, func(ctx context.Context) error {
			page = page[:0]
			for o := range s.core.ListObjectsIter(ctx, s.place.bucket, opts) {
				if o.Err != nil {
					return o.Err
				}
				if page = append(page, o); len(page) == listPage {
					break
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		for _, o := range page {
			if key, ok := s.keyOf(folder, o.Key); ok && !f(o, key) {
				return nil
			}
		}
		if len(page) < listPage {
			return nil
		}
		opts.StartAfter = page[listPage-1].Key
	}
}

// eachUpload calls f with the unfinished multipart uploads of keys that begin
// with prefix and come after the given one, in order, until f returns false.
func (s *Store) eachUpload(ctx context.Context, prefix, after string, f func(u minio.ObjectMultipartInfo, key string) (bool, error)) error {
	key, id := "", ""
	if after != "" {
		key = s.name(after)
	}
	for {
		var page minio.ListMultipartUploadsResult
		err := s.try(ctx, func(ctx context.Context) (err error) {
			page, err = s.core.ListMultipartUploads(ctx, s.place.bucket, s.name(prefix), key, id, "", listPage)
			return err
		})
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			k, ok := s.keyOf("blobs/", u.Key)
			if !ok || k <= after {
				continue
			}
			if more, err := f(u, k); err != nil || !more {
				return err
			}
		}
		// A page that does not move on would be asked for for ever.
		if !page.IsTruncated || page.NextKeyMarker < key || page.NextKeyMarker == key && page.NextUploadIDMarker == id {
			return nil
		}
		key, id = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

func commonPrefix(keys []string) string {
	prefix := keys[0]
	for _, key := range keys[1:] {
		for !strings.HasPrefix(key, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	return prefix
}
