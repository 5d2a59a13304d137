package content_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

func openS3(t *testing.T, b *s3test.Bucket, url string) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), url, s3.Options{Getenv: b.Getenv, Transport: s3test.Transport(t), RetryTime: 300 * time.Millisecond})
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

// TestS3Faults breaks every operation of S3 that a push uses, once and for good:
// the server is busy, the request breaks off, its answer is lost after the work
// was done, its bytes are changed. Whatever happens, nothing is visible by half,
// the same push succeeds afterwards, and a day later nothing else remains.
func TestS3Faults(t *testing.T) {
	ops := []s3test.Op{
		s3test.PutObject, s3test.PutTail, s3test.Create, s3test.CopyPart, s3test.Complete, s3test.Get, s3test.Head,
		s3test.ListUploads, s3test.ListObjects, s3test.DeleteMany,
	}
	tool.Need(t, "versitygw")
	var failed atomic.Int64
	t.Run("a push", func(t *testing.T) { // ends when all its parallel cases have
		s3FaultTable(t, ops, &failed)
	})
	if n := failed.Load(); n < 20 {
		t.Errorf("only %d faults made a push fail: the table does not reach what it should", n)
	}
}

func s3FaultTable(t *testing.T, ops []s3test.Op, failed *atomic.Int64) {
	for _, op := range ops {
		for name, fault := range map[string]s3test.Fault{"busy": s3test.Busy, "cut": s3test.Cut, "lost": s3test.Lost, "corrupt": s3test.Corrupt, "full": s3test.Full} {
			t.Run(fmt.Sprintf("%s %s once", op, name), func(t *testing.T) {
				t.Parallel()
				s3FaultCase(t, s3test.Once(op, 1, fault))
			})
			t.Run(fmt.Sprintf("%s %s always", op, name), func(t *testing.T) {
				t.Parallel()
				if s3FaultCase(t, s3test.Always(op, fault)) {
					failed.Add(1)
				}
			})
		}
	}
}

func s3FaultCase(t *testing.T, fault func(s3test.Op, int) s3test.Fault) (failed bool) {
	b := s3test.Start(t)
	p := s3test.NewProxy(t, b)
	clk := &clock{}
	d, store := openDB(t, db.Options{Now: clk.now}), openS3(t, b, b.Via(p.URL))
	c := content.New(d, store, content.Options{})
	p.Break(fault)
	_, err := push(t.Context(), c)
	if err != nil {
		failed = true
		if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
			t.Errorf("the fault is reported as %s: %v", gatehouse.CodeOf(err), err)
		}
		if _, err := c.ManifestByTag(t.Context(), "a/b", "v1"); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			t.Errorf("a push that failed is visible: %v", err)
		}
	}
	p.Break(nil)
	wantSound(t, c)
	digest, err := push(t.Context(), c)
	if err != nil {
		t.Fatalf("the push cannot be repeated: %v", err)
	}
	suite := &contenttest.Suite{T: t, C: c}
	suite.WantBlob("a/b", contenttest.Describe("", faultBig), faultBig)
	if m, err := c.ManifestByTag(t.Context(), "a/b", "v1"); err != nil || m.Digest != digest {
		t.Errorf("after the repetition: %v, %v", m, err)
	}
	clk.ahead = 48 * time.Hour
	if err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSound(t, c)
	objects, err := store.List(t.Context(), "", 100)
	if err != nil || len(objects) != 1 || !objects[0].Published {
		t.Errorf("after the sweep storage holds %v, %v; want the one layer", objects, err)
	}
	client := b.Client(t)
	if uploads, err := client.ListMultipartUploads(t.Context(), b.Name, "", "", "", "", 100); err != nil || len(uploads.Uploads) != 0 {
		t.Errorf("uploads that are left: %v, %v", uploads.Uploads, err)
	}
	return failed
}
