package content_test

import (
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
)

func openS3(t *testing.T, b *s3test.Bucket, url string) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), url, s3.Options{Getenv: b.Getenv, Transport: s3test.Transport(t), RetryTime: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContentOnS3(t *testing.T) {
	contenttest.Run(t, func(t *testing.T) gatehouse.Content {
		b := s3test.Start(t)
		return open(t, openS3(t, b, b.URL))
	})
}
