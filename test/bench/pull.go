package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	pullRounds    = 5
	pullTime      = 700 * time.Millisecond
	manifestLimit = 2    // times the peer
	atWorst       = 0.95 // of the peer, whatever it is about
	bareLimit     = 0.9  // of a bare http.ServeContent
)

// connections are how many clients ask at once.
var connections = []int{1, 8}

func over(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}

// measureManifest asks for a manifest by tag, as every pull begins.
func measureManifest(ctx context.Context, b *bench) (rows []row, err error) {
	p, err := startPair(ctx, b, "manifest")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	img, err := newImage(10, 1<<10)
	if err != nil {
		return nil, err
	}
	const repo = "bench/app"
	push := func(c *client) error { return img.push(c, repo, "v1") }
	if err := p.each(push); err != nil {
		return nil, err
	}
	get := func(c *client, _ int) error {
		a, err := c.want(http.StatusOK, "GET", repo, "/v2/"+repo+"/manifests/v1", nil, "Accept", manifestType)
		if err == nil && digestOf(a.body) != digestOf(img.manifest) {
			err = errors.New(c.target.name + " serves another manifest")
		}
		return err
	}
	for _, n := range connections {
		got, err := rounds(ctx, pullRounds, load{clients: n, time: pullTime, op: get}, p.ours, p.theirs)
		if err != nil {
			return rows, err
		}
		rows = append(rows, beside("manifest GET by tag, "+over(n)+", beside "+p.theirs.name, manifestLimit, p.ours, p.theirs, got)...)
	}
	// What the choice of their authentication does to the ratio.
	for _, how := range []guard{byAnything, byPassword} {
		other, err := startPeer(ctx, b, filepath.Join(b.work, "manifest-"+string(how)), how)
		if err != nil {
			return rows, err
		}
		got, err := besideGuard(ctx, p, other, push, get)
		if err := errors.Join(err, other.stop()); err != nil {
			return rows, err
		}
		rows = append(rows, beside(fmt.Sprintf("— if it checks credentials by %q instead", how), 0, p.ours, &other.target, got)...)
	}
	return rows, nil
}

func besideGuard(ctx context.Context, p *pair, other *peer, push func(*client) error, get func(*client, int) error) ([][]measured, error) {
	c, err := dial(&other.target)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := push(c); err != nil {
		return nil, err
	}
	return rounds(ctx, 3, load{clients: connections[len(connections)-1], time: pullTime, op: get}, p.ours, &other.target)
}

// measureBlob pulls blobs, beside the peer and beside a program that does
// nothing but http.ServeContent of the same bytes, without asking who it is.
func measureBlob(ctx context.Context, b *bench) (rows []row, err error) {
	p, err := startPair(ctx, b, "blob")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	const repo = "bench/app"
	for _, size := range []int{1 << 20, 100 << 20} {
		layer, _, err := randomLayer(size)
		if err != nil {
			return rows, err
		}
		if err := p.each(func(c *client) error { return c.pushBlob(repo, layer.digest, layer.body) }); err != nil {
			return rows, err
		}
		if err := settled(p.ours); err != nil {
			return rows, err
		}
		got, err := blobSize(ctx, p, repo, layer)
		rows = append(rows, got...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func blobSize(ctx context.Context, p *pair, repo string, layer blobBytes) (rows []row, err error) {
	file, err := p.server.blobFile(int64(len(layer.body)))
	if err != nil {
		return nil, err
	}
	bare, err := startBare(ctx, file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.stop()) }()
	get := func(c *client, _ int) error {
		a, err := c.want(http.StatusOK, "GET", repo, "/v2/"+repo+"/blobs/"+layer.digest, nil)
		if err == nil && a.size != int64(len(layer.body)) {
			err = fmt.Errorf("%s serves %d bytes of %d", c.target.name, a.size, len(layer.body))
		}
		return err
	}
	for _, n := range connections {
		l := load{clients: n, time: pullTime, op: get}
		if len(layer.body) > 10<<20 { // whole ones, and enough of them
			l.time, l.count = 0, 12
		}
		got, err := rounds(ctx, pullRounds, l, p.ours, p.theirs, &bare.target)
		if err != nil {
			return rows, err
		}
		what := fmt.Sprintf("blob GET %d MiB, %s, beside ", len(layer.body)>>20, over(n))
		rows = append(rows, beside(what+p.theirs.name, atWorst, p.ours, p.theirs, got[:2])...)
		rows = append(rows, beside(what+bare.name, bareLimit, p.ours, &bare.target, [][]measured{got[0], got[2]})...)
	}
	return rows, nil
}

// blobFile finds the one stored file of that size: the bare server serves the
// very same one, since how a file was written shows in how fast it is read.
func (s *server) blobFile(size int64) (path string, err error) {
	err = filepath.WalkDir(filepath.Join(s.data, "blobs"), func(at string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() == size {
			path = at
		}
		return err
	})
	if err == nil && path == "" {
		err = fmt.Errorf("no stored file has %d bytes", size)
	}
	return path, err
}

// serveFileCommand makes this program the bare server: what the blobs of a
// registry cannot be faster than.
const serveFileCommand = "serve-file"

// serveFile prints the address that it listens on and serves one file for ever.
func serveFile(path string, stdout, stderr io.Writer) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
		return 1
	}
	fmt.Fprintln(stdout, l.Addr())
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	}))
	fmt.Fprintf(stderr, "error: %v\n", err)
	return 1
}

type bareServer struct {
	target
	cmd *exec.Cmd
}

func startBare(ctx context.Context, file string) (*bareServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &bareServer{target: target{name: "bare ServeContent"}, cmd: exec.CommandContext(ctx, self, serveFileCommand, file)}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.pid = s.cmd.Process.Pid
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	s.addr = strings.TrimSpace(string(line[:n]))
	return s, s.answers(ctx)
}

func (s *bareServer) stop() error {
	_ = s.cmd.Process.Kill() // it may have ended already
	_ = s.cmd.Wait()         // says that it was killed
	return nil
}
