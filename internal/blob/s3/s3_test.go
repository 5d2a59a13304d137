package s3_test

import (
	"context"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/blobtest"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
)

// open opens the store at url, where failing requests are repeated for a second.
func open(t testing.TB, b *s3test.Bucket, url string) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), url, s3.Options{Getenv: b.Getenv, Transport: s3test.Transport(t), RetryTime: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	var b *s3test.Bucket
	blobtest.RunRemote(t, func(t *testing.T) blob.Store {
		b = s3test.Start(t)
		return open(t, b, b.URL)
	}, func(t *testing.T, _ blob.Store) blob.Store { return open(t, b, b.URL) })
}

// TestStoreWithoutConditions: a server that knows no conditions on writes.
func TestStoreWithoutConditions(t *testing.T) {
	var p *s3test.Proxy
	var b *s3test.Bucket
	again := func(t *testing.T, _ blob.Store) blob.Store {
		p.Break(s3test.Once(s3test.PutMarker, 1, s3test.Missing))
		s := open(t, b, b.Via(p.URL))
		if s.Conditional() {
			t.Fatal("the store believes in conditions")
		}
		return s
	}
	blobtest.RunRemote(t, func(t *testing.T) blob.Store {
		b = s3test.Start(t)
		p = s3test.NewProxy(t, b)
		return again(t, nil)
	}, again)
}

var _ = context.Background
