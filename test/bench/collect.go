package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	collectBlobs    = 9_999    // and the image's own: a manifest may name so many
	collectBlobSize = 65 << 10 // the smallest that lies in a file
	collectLimitS   = 10
	collectGrow     = 1.2 // of the p99 of pulls beside it
	collectClients  = 4
	collectPause    = 5 * time.Millisecond // between two pulls of one client
	collectLook     = 200 * time.Millisecond
	collectCalm     = 4 * time.Second // of pulls alone, before and after
)

// measureCollect deletes a manifest that is the last to need ten thousand
// blobs, then asks for a collection that takes grace and tombstone delay as over,
// and measures how long their files remain; meanwhile clients pull another image.
func measureCollect(ctx context.Context, b *bench) (rows []row, err error) {
	binary, err := b.buildGatehouse(ctx)
	if err != nil {
		return nil, err
	}
	help, err := exec.CommandContext(ctx, binary, "gc", "run", "--help").Output()
	if err != nil || !strings.Contains(string(help), "gatehouse gc run") {
		return nil, errors.New("this build has no command `gatehouse gc run`")
	}
	data := filepath.Join(b.work, "collect")
	img, err := newImage(3, 256<<10)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	garbage, err := fillGarbage(ctx, binary, data, img)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(b.log, "    filled %d blobs in %.0f s\n", collectBlobs, time.Since(start).Seconds())
	s, err := startServer(ctx, binary, data, "--log-level", "error")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	t := s.target()
	c, err := dial(t)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if _, err := c.want(http.StatusAccepted, "DELETE", "bench/garbage", "/v2/bench/garbage/manifests/"+garbage, nil); err != nil {
		return nil, err
	}
	if err := settled(t); err != nil {
		return nil, err
	}
	kept := 1 + len(img.layers) // at most: configs and small blobs lie in rows
	calm := func() error { time.Sleep(collectCalm); return nil }
	var took time.Duration
	var pulls [3][]time.Duration // before, during, after
	for i, work := range []func() error{calm, func() (err error) {
		took, err = collect(ctx, binary, s, kept)
		return err
	}, calm} {
		if pulls[i], err = pullWhile(ctx, t, img, work); err != nil {
			return nil, err
		}
	}
	alone, during := slices.Concat(pulls[0], pulls[2]), pulls[1]
	a, z := percentile(alone, 99), percentile(during, 99)
	return []row{
		under(fmt.Sprintf("gc of %d unreferenced blobs of %d KiB on disk, until their files are gone", collectBlobs, collectBlobSize>>10), took.Seconds(), collectLimitS, "s"),
		under("— p99 of concurrent pulls against that of pulls alone, before and after", float64(z)/float64(a), collectGrow, "x"),
		{what: fmt.Sprintf("— p99 alone, during (%d and %d pulls)", len(alone), len(during)), measured: fmt.Sprintf("%.3g ms, %.3g ms", ms(a), ms(z))},
		{what: "— p99 before, after", measured: fmt.Sprintf("%.3g ms, %.3g ms", ms(percentile(pulls[0], 99)), ms(percentile(pulls[2], 99)))},
	}, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// fillGarbage pushes img, which stays, and a manifest of many blobs, whose
// digest it returns.
func fillGarbage(ctx context.Context, binary, data string, img image) (digest string, err error) {
	s, err := startServer(ctx, binary, data, "--log-level", "error")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := dial(s.target())
	if err != nil {
		return "", err
	}
	defer c.close()
	if err := img.push(c, "bench/app", "v1"); err != nil {
		return "", err
	}
	const repo = "bench/garbage"
	layers := make([]descriptor, collectBlobs)
	push := load{clients: 8, count: collectBlobs, op: func(c *client, n int) error {
		body := make([]byte, collectBlobSize)
		rand.Read(body)
		blob := newBlob(body)
		layers[n] = blob.descriptor("application/octet-stream")
		_, err := c.want(http.StatusCreated, "POST", repo, "/v2/"+repo+"/blobs/uploads/?digest="+blob.digest, body)
		return err
	}}
	if _, err := push.run(ctx, s.target()); err != nil {
		return "", err
	}
	empty := newBlob([]byte("{}"))
	if err := c.pushBlob(repo, empty.digest, empty.body); err != nil {
		return "", err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "artifactType": "application/vnd.example.bench",
		"config": empty.descriptor("application/vnd.oci.empty.v1+json"), "layers": layers,
	})
	if err != nil {
		return "", err
	}
	return digestOf(manifest), c.pushManifest(repo, digestOf(manifest), manifest)
}

// collect asks for a collection and waits until no more than the kept files are
// left. That is seen in the directory itself.
func collect(ctx context.Context, binary string, s *server, kept int) (time.Duration, error) {
	start := time.Now()
	run := exec.CommandContext(ctx, binary, "gc", "run", "--ignore-windows", "--yes", "--server", s.url)
	run.Env = append(run.Environ(), "GATEHOUSE_USERNAME=admin", "GATEHOUSE_PASSWORD="+adminPassword)
	if _, err := runUsed(run); err != nil {
		return 0, err
	}
	for {
		left, err := countFiles(filepath.Join(s.data, "blobs"))
		if err != nil {
			return 0, err
		}
		took := time.Since(start)
		if left <= kept {
			return took, nil
		}
		if took > 10*collectLimitS*time.Second {
			return 0, fmt.Errorf("%d files are left after %s", left, took)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(collectLook):
		}
	}
}

func countFiles(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone since
		}
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return err
	})
	return n, err
}

// pullWhile pulls an image, manifest and layers, again and again while work
// runs, and returns how long each pull took.
func pullWhile(ctx context.Context, t *target, img image, work func() error) (took []time.Duration, err error) {
	ctx, stop := context.WithCancel(ctx)
	var mu sync.Mutex // guards took, failed
	var failed error
	var wg sync.WaitGroup
	for range collectClients {
		wg.Go(func() {
			list, err := pullUntil(ctx, t, img)
			mu.Lock()
			defer mu.Unlock()
			took, failed = append(took, list...), errors.Join(failed, err)
		})
	}
	err = work()
	stop()
	wg.Wait()
	return took, errors.Join(err, failed)
}

func pullUntil(ctx context.Context, t *target, img image) (took []time.Duration, err error) {
	c, err := dial(t)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for ctx.Err() == nil {
		start := time.Now()
		if _, err := c.want(http.StatusOK, "GET", "bench/app", "/v2/bench/app/manifests/v1", nil, "Accept", manifestType); err != nil {
			return nil, err
		}
		for _, layer := range img.layers {
			if _, err := c.want(http.StatusOK, "GET", "bench/app", "/v2/bench/app/blobs/"+layer.digest, nil); err != nil {
				return nil, err
			}
		}
		took = append(took, time.Since(start))
		time.Sleep(collectPause)
	}
	return took, nil
}

// percentile of a list that has any.
func percentile(list []time.Duration, p int) time.Duration {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[min(len(list)-1, len(list)*p/100)]
}
