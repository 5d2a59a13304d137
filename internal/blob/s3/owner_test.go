package s3_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
)

// unconditional is the way to a server that knows no conditions on writes.
type unconditional struct{ http.RoundTripper }

func (u unconditional) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("If-None-Match") == "" {
		return u.RoundTripper.RoundTrip(r)
	}
	text := `<?xml version="1.0"?><Error><Code>NotImplemented</Code><Message>no conditions here</Message></Error>`
	return &http.Response{StatusCode: http.StatusNotImplemented, Header: http.Header{"Content-Type": {"application/xml"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

// TestOwner: a folder of a bucket belongs to one installation; another one is
// refused before it writes or deletes anything.
func TestOwner(t *testing.T) {
	for _, conditions := range []bool{true, false} {
		t.Run(map[bool]string{true: "with conditions", false: "without conditions"}[conditions], func(t *testing.T) {
			b := s3test.Start(t)
			transport := s3test.Transport(t)
			if !conditions {
				transport = unconditional{transport}
			}
			openAs := func(url, installation string) error {
				s, err := s3.Open(t.Context(), url, s3.Options{Getenv: b.Getenv, Transport: transport, RetryTime: time.Second, Installation: installation})
				if err == nil && s.Conditional() != conditions {
					t.Errorf("the store believes in conditions: %v", s.Conditional())
				}
				return err
			}
			client, marker := b.Client(t), markerName(t, b)
			put := func(text string) {
				t.Helper()
				r := strings.NewReader(text)
				if _, err := client.PutObject(t.Context(), b.Name, marker, r, r.Size(), "", "", minio.PutObjectOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			url := b.URL
			for _, step := range []struct {
				name, url, installation string
				want                    gatehouse.Code
			}{
				{"the first", url, "ONE", ""},
				{"the first again", url, "ONE", ""},
				{"another", url, "TWO", gatehouse.CodeConflict},
				{"the first after the other was refused", url, "ONE", ""},
				{"another in another folder", strings.Replace(url, b.Name+"/", b.Name+"/other-", 1), "TWO", ""},
				{"who only looks", url, "", ""},
			} {
				err := openAs(step.url, step.installation)
				if gatehouse.CodeOf(err) != step.want {
					t.Fatalf("%s: %v", step.name, err)
				}
				if err != nil && (!strings.Contains(err.Error(), b.Name) || !strings.Contains(err.Error(), strings.TrimSuffix(marker, "gatehouse-store")) || !strings.Contains(gatehouse.HintOf(err), marker)) {
					t.Errorf("%s: the error does not name the place: %v; %s", step.name, err, gatehouse.HintOf(err))
				}
			}
			put("This bucket, or this folder of it, belongs to Gatehouse.\n")
			if err := openAs(url, "THREE"); err != nil {
				t.Errorf("a marker that names nobody is not taken over: %v", err)
			}
			if err := openAs(url, "ONE"); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
				t.Errorf("after the marker was taken over by another: %v", err)
			}
			put("somebody else's words")
			if err := openAs(url, "THREE"); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
				t.Errorf("a marker that is not ours: %v", err)
			}
			if err := client.Client.RemoveObject(t.Context(), b.Name, marker, minio.RemoveObjectOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := openAs(url, "FOUR"); err != nil {
				t.Errorf("after the marker was removed: %v", err)
			}
		})
	}
}

// TestOneOwner: of many installations that begin at once one gets the folder.
func TestOneOwner(t *testing.T) {
	b := s3test.Start(t)
	const n = 8
	errs := make(chan error)
	for i := range n {
		go func() {
			_, err := s3.Open(t.Context(), b.URL, s3.Options{Getenv: b.Getenv, Transport: s3test.Transport(t), RetryTime: time.Second, Installation: string(rune('A' + i))})
			errs <- err
		}()
	}
	won := 0
	for range n {
		switch err := <-errs; gatehouse.CodeOf(err) {
		case "":
			won++
		case gatehouse.CodeConflict:
		default:
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d installations got the folder", won)
	}
}

// markerName is where the marker of b.URL lies.
func markerName(t *testing.T, b *s3test.Bucket) string {
	t.Helper()
	_, prefix, ok := strings.Cut(strings.SplitN(b.URL, "?", 2)[0], "//"+b.Name+"/")
	if !ok {
		t.Fatal(b.URL)
	}
	return strings.TrimSuffix(prefix, "/") + "/gatehouse-store"
}
