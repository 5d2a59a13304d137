// Package s3test gives tests buckets on a real S3 server, and a proxy in front
// of it that breaks what passes.
package s3test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

const (
	accessKey = "gatehouse-test"
	secretKey = "gatehouse-test-secret"
	startTime = 30 * time.Second
)

// Bucket is an empty bucket.
type Bucket struct {
	Endpoint string // http://127.0.0.1:PORT
	Name     string
	URL      string // as the storage setting takes it
	Env      []string
}

// Getenv knows the credentials and nothing else.
func (b *Bucket) Getenv(name string) string {
	for _, e := range b.Env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// Via is the bucket's URL through another endpoint.
func (b *Bucket) Via(endpoint string) string {
	return "s3://" + b.Name + "/store?endpoint=" + url.QueryEscape(endpoint)
}

// Client is a plain client of the bucket's server.
func (b *Bucket) Client(t testing.TB) *minio.Core {
	t.Helper()
	c, err := newClient(b.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newClient(endpoint string) (*minio.Core, error) {
	return minio.NewCore(strings.TrimPrefix(endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath,
	})
}

// Transport is a transport for tests, with connections of its own that end with
// the test.
func Transport(t testing.TB) http.RoundTripper {
	tr := &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// server is started once per test binary.
var server = sync.OnceValues(func() (string, error) {
	program, err := program()
	if err != nil {
		return "", err
	}
	for range 3 { // the free port may be taken by the time it is used
		endpoint, serr := startServer(program)
		if serr == nil {
			return endpoint, nil
		}
		err = serr
	}
	return "", err
})

func program() (string, error) {
	if path := os.Getenv("GATEHOUSE_VERSITYGW"); path != "" {
		return path, nil
	}
	return exec.LookPath("versitygw")
}

// Start returns a fresh bucket. The server listens on loopback and keeps its
// data in a temporary directory; both go when the test binary ends, however it
// does. Without versitygw the test is skipped.
func Start(t testing.TB) *Bucket {
	t.Helper()
	tool.Need(t, "versitygw")
	endpoint, err := server()
	if err != nil {
		t.Fatal(err)
	}
	b := &Bucket{
		Endpoint: endpoint, Name: "test-" + strings.ToLower(rand.Text()),
		Env: []string{"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey},
	}
	b.URL = b.Via(endpoint)
	if err := b.Client(t).MakeBucket(t.Context(), b.Name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// supervise runs the server until its own standard input ends, which is when
// the test binary does, even if it is killed; then it removes the data.
const supervise = `dir=$1; shift
"$@" >"$dir/log" 2>&1 </dev/null &
pid=$!
cat >/dev/null
kill "$pid"
wait "$pid"
rm -rf "$dir"`

func startServer(program string) (endpoint string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	l.Close()
	dir, err := os.MkdirTemp("", "s3test-*")
	if err != nil {
		return "", err
	}
	for _, sub := range []string{"data", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return "", err
		}
	}
	cmd := exec.Command("sh", "-c", supervise, "sh", dir,
		program, "--port", addr, "--access", accessKey, "--secret", secretKey, "--health", "/health", "--quiet", "--keep-alive",
		"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	stdin, err := cmd.StdinPipe() // stays open until this process ends
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	if err := await("http://" + addr + "/health"); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		stdin.Close()
		cmd.Wait()
		return "", fmt.Errorf("versitygw: %w\n%s", err, log)
	}
	alive = append(alive, stdin)
	return "http://" + addr, nil
}

// alive holds the supervisors' standard inputs. They must stay reachable: what
// is collected as garbage is closed.
var alive []io.Closer

// await asks until the server answers.
func await(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	c := http.Client{Timeout: time.Second}
	for {
		resp, err := c.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
