package s3_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
)

type ctx = context.Context

var withCancel = context.WithCancel

var listAll = minio.ListObjectsOptions{Recursive: true}

// recorder answers every request with 403 and keeps where it went.
type recorder struct{ urls []string }

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.urls = append(r.urls, req.URL.String())
	return &http.Response{StatusCode: 403, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

func TestURL(t *testing.T) {
	env := map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hush-hush"}
	for _, test := range []struct {
		url  string
		want string // of the first request, or of the error behind "!"
	}{
		{"s3://bucket?endpoint=http://127.0.0.1:9000", "http://127.0.0.1:9000/bucket/gatehouse-store"},
		{"s3://bucket/?endpoint=http://127.0.0.1:9000/", "http://127.0.0.1:9000/bucket/gatehouse-store"},
		{"s3://bucket/a/b/?endpoint=https://s3.example.com", "https://s3.example.com/bucket/a/b/gatehouse-store"},
		{"s3://bucket?endpoint=https://s3.example.com&path-style=false", "https://bucket.s3.example.com/gatehouse-store"},
		{"s3://bucket?region=eu-west-1", "https://bucket.s3.dualstack.eu-west-1.amazonaws.com/gatehouse-store"},
		{"s3://bucket?region=eu-west-1&path-style=true&redirect=false", "https://s3.dualstack.eu-west-1.amazonaws.com/bucket/gatehouse-store"},
		{"s3://bucket", "!no region"},
		{"s3://bucket?region=eu-west-1&redirect=yes", "!neither true nor false"},
		{"s3://bucket?regoin=eu-west-1", "!there are endpoint, path-style, redirect, region"},
		{"s3://bucket?pathstyle=true", "!there are endpoint, path-style, redirect, region"},
		{"s3://bucket?end-point=https://x", "!there are endpoint, path-style, redirect, region"},
		{"s3://bucket?region=a&region=b", "!more than once"},
		{"s3://bucket?region=a.b", "!not a region"},
		{"s3://id:secret@bucket?region=eu-west-1", "!holds credentials"},
		{"s3://bucket?endpoint=https://id:secret@s3.example.com", "!holds credentials"},
		{"s3://bucket?endpoint=ftp://s3.example.com", "!endpoint"},
		{"s3://bucket?endpoint=s3.example.com", "!endpoint"},
		{"s3://bucket?endpoint=https://s3.example.com/minio", "!endpoint"},
		{"s3://Bucket_?region=eu-west-1", "!not a bucket"},
		{"s3://b/?region=eu-west-1", "!not a bucket"},
		{"s3:///x?region=eu-west-1", "!not a bucket"},
		{"s3://bucket/../x?region=eu-west-1", "!not a prefix"},
		{"s3://bucket/a//b?region=eu-west-1", "!not a prefix"},
		{"s3://bucket/a%20b?region=eu-west-1", "!not a prefix"},
		{"s3://bucket#x", "!form"},
		{"https://bucket", "!form"},
		{"bucket", "!form"},
		{"s3:bucket", "!form"},
		{"", "!form"},
		{"s3://%zz", "!form"},
	} {
		r := &recorder{}
		_, err := s3.Open(t.Context(), test.url, s3.Options{Getenv: func(k string) string { return env[k] }, Transport: r})
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		text := err.Error() + " " + gatehouse.HintOf(err)
		if strings.Contains(text, "secret@") || strings.Contains(text, "hush") {
			t.Errorf("%s: the error tells the secret: %s", test.url, text)
		}
		if want, bad := strings.CutPrefix(test.want, "!"); bad {
			if len(r.urls) != 0 || !strings.Contains(text, want) {
				t.Errorf("%s: %q after requests to %v, want %q", test.url, text, r.urls, want)
			}
		} else if len(r.urls) == 0 || r.urls[0] != want {
			t.Errorf("%s: asked %v, want %s", test.url, r.urls, want)
		}
	}
}

// TestCredentials: where they come from, and what is said when there are none.
func TestCredentials(t *testing.T) {
	b := s3test.Start(t)
	file := t.TempDir() + "/credentials"
	writeFile(t, file, "[other]\naws_access_key_id = "+b.Getenv("AWS_ACCESS_KEY_ID")+"\naws_secret_access_key = "+b.Getenv("AWS_SECRET_ACCESS_KEY")+"\n")
	for name, test := range map[string]struct {
		env  map[string]string
		want gatehouse.Code
	}{
		"a file":          {map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_PROFILE": "other"}, ""},
		"none":            {nil, gatehouse.CodeInvalid},
		"half":            {map[string]string{"AWS_ACCESS_KEY_ID": "x"}, gatehouse.CodeInvalid},
		"another profile": {map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file}, gatehouse.CodeInvalid},
		"wrong":           {map[string]string{"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}, gatehouse.CodeInvalid},
		"wrong secret":    {map[string]string{"AWS_ACCESS_KEY_ID": b.Getenv("AWS_ACCESS_KEY_ID"), "AWS_SECRET_ACCESS_KEY": "y"}, gatehouse.CodeInvalid},
	} {
		_, err := s3.Open(t.Context(), b.URL, s3.Options{
			Getenv: func(k string) string { return test.env[k] }, Transport: s3test.Transport(t), RetryTime: 100 * time.Millisecond,
		})
		if gatehouse.CodeOf(err) != test.want {
			t.Errorf("%s: %v (%s)", name, err, gatehouse.CodeOf(err))
		}
		if err != nil && name != "half" && name != "another profile" && gatehouse.HintOf(err) == "" {
			t.Errorf("%s: no hint: %v", name, err)
		}
	}
}

// TestOpenRefusals: what is wrong with the place is said at the start.
func TestOpenRefusals(tt *testing.T) {
	t := newBroken(tt)
	open := func(url string, fault s3test.Fault) error {
		t.Break(s3test.Always(s3test.PutMarker, fault))
		_, err := s3.Open(t.Context(), url, s3.Options{Getenv: t.b.Getenv, Transport: s3test.Transport(t), RetryTime: 100 * time.Millisecond})
		return err
	}
	via := t.b.Via(t.URL)
	for name, test := range map[string]struct {
		err  error
		want gatehouse.Code
	}{
		"no such bucket":     {open(strings.Replace(via, t.b.Name, "no-such-bucket", 1), s3test.None), gatehouse.CodeInvalid},
		"denied":             {open(via, s3test.Deny), gatehouse.CodeInvalid},
		"busy":               {open(via, s3test.Busy), gatehouse.CodeUnavailable},
		"full":               {open(via, s3test.Full), gatehouse.CodeUnavailable},
		"connection refused": {open(t.b.Via("http://127.0.0.1:1"), s3test.None), gatehouse.CodeUnavailable},
		"not TLS":            {open(t.b.Via(strings.Replace(t.URL, "http:", "https:", 1)), s3test.None), gatehouse.CodeUnavailable},
	} {
		if gatehouse.CodeOf(test.err) != test.want {
			t.Errorf("%s: %v (%s)", name, test.err, gatehouse.CodeOf(test.err))
		}
		if test.want == gatehouse.CodeInvalid && gatehouse.HintOf(test.err) == "" {
			t.Errorf("%s: no hint", name)
		}
	}
	// Later on the same answers are the storage's trouble, and their words stay
	// out of what clients see.
	key := blob.NewKey(time.Now())
	if _, err := blob.Put(t.Context(), t.s, key, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []s3test.Fault{s3test.Deny, s3test.Busy, s3test.Full} {
		t.Break(s3test.Always(s3test.Get, fault))
		_, err := t.s.Open(t.Context(), key)
		e, ok := err.(*gatehouse.Error)
		if !ok || e.Code != gatehouse.CodeUnavailable || strings.Contains(e.Message, "127.0.0.1") || strings.Contains(e.Message, "injected") {
			t.Errorf("fault %d: %#v", fault, err)
		}
	}
}

// TestStates: a state that is not one of ours is an error, and no panic.
func TestStates(tt *testing.T) {
	t := newBroken(tt)
	key := blob.NewKey(time.Now())
	for _, raw := range []string{
		``, `{`, `[]`, `{}`, `{"v":2,"size":0,"token":"t","sum":"s"}`, `{"v":1,"size":-1,"token":"t","sum":"s"}`, `{"v":1,"size":0,"sum":"s"}`,
		`{"v":1,"size":9000000,"token":"t","sum":"s"}`, `{"v":1,"size":1,"token":"t","parts":["a"],"sum":"s"}`, `{"v":1,"size":1,"token":"t","upload":"u"}`,
		`{"v":1,"size":8388608,"token":"t","upload":"u","parts":["a"],"tail":"x"}`, `{"v":1,"size":1,"token":"t","sum":"s","more":1}`,
	} {
		if _, err := t.s.Write(t.Context(), key, 0, []byte(raw)); gatehouse.CodeOf(err) != gatehouse.CodeInternal {
			t.Errorf("Write with %s: %v", raw, err)
		}
		if err := t.s.Publish(t.Context(), key, 0, []byte(raw)); gatehouse.CodeOf(err) != gatehouse.CodeInternal {
			t.Errorf("Publish with %s: %v", raw, err)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
