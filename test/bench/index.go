package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"

	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

const (
	indexRounds = 7  // odd: the median is one of them
	syftRounds  = 3  // odd
	floorShare  = 60 // % of the floor's speed
)

// measureIndex compares our indexing of a Debian layer with the least that
// anyone must do with it, and sets syft beside it.
func measureIndex(ctx context.Context, b *bench) ([]row, error) {
	path, err := debianLayer(ctx, b)
	if err != nil {
		return nil, err
	}
	blob, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var ours, floors, cpu []time.Duration
	var size int64
	packages := 0
	for range indexRounds {
		f, err := selfUsed(func() (err error) { size, err = floor(blob); return err })
		if err != nil {
			return nil, err
		}
		o, err := selfUsed(func() error {
			inventory, err := index.Layer(ctx, bytes.NewReader(blob), index.DefaultLimits(), index.All())
			if err == nil && !inventory.Complete {
				err = fmt.Errorf("the inventory is incomplete: %v", inventory.Incomplete)
			}
			packages = 0
			for _, s := range inventory.Sets {
				packages += len(s.Packages)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		ours, floors, cpu = append(ours, o.wall), append(floors, f.wall), append(cpu, o.cpu)
	}
	if packages == 0 {
		return nil, errors.New("the index found no packages in Debian")
	}
	speed := func(d time.Duration) float64 { return float64(size) / (1 << 20) / d.Seconds() }
	rows := []row{
		atLeast("index a Debian layer, speed against the floor", 100*speed(median(ours))/speed(median(floors)), floorShare, "%"),
		{what: fmt.Sprintf("— index (%d packages, %.0f MiB of tar), median of %d", packages, float64(size)/(1<<20), indexRounds),
			measured: fmt.Sprintf("%.0f MiB/s, %.2f s wall, %.2f s CPU", speed(median(ours)), median(ours).Seconds(), median(cpu).Seconds())},
		{what: "— floor: one goroutine gunzips, hashes, reads every body",
			measured: fmt.Sprintf("%.0f MiB/s, %.2f s wall", speed(median(floors)), median(floors).Seconds())},
	}
	syft, err := measureSyft(ctx, b, path)
	if err != nil {
		return rows, err
	}
	return append(rows, syft), nil
}

// floor is the least work that any indexer has: gunzip, digest, read every
// file, in one goroutine.
func floor(blob []byte) (size int64, err error) {
	zr, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		return 0, err
	}
	hash := sha256.New()
	counted := &counter{w: hash}
	r := io.TeeReader(zr, counted)
	tr := tar.NewReader(r)
	for {
		_, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		if _, err := io.Copy(io.Discard, tr); err != nil {
			return 0, err
		}
	}
	_, err = io.Copy(io.Discard, r) // the padding belongs to the digest
	_ = hash.Sum(nil)
	return counted.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return c.w.Write(b)
}

// measureSyft lets syft catalogue the same layer, as an image in an OCI layout.
func measureSyft(ctx context.Context, b *bench, layer string) (row, error) {
	t, err := tool.Lookup("syft")
	if err != nil {
		return row{}, err
	}
	binary, err := t.Ensure(ctx, b.root, b.log)
	if err != nil {
		return row{}, err
	}
	version, err := t.Version(b.root)
	if err != nil {
		return row{}, err
	}
	dir := filepath.Join(b.work, "layout")
	if err := writeLayout(dir, layer); err != nil {
		return row{}, err
	}
	var wall, cpu []time.Duration
	var rss int64
	for range syftRounds {
		cmd := exec.CommandContext(ctx, binary, "scan", "oci-dir:"+dir, "-q", "-o", "json="+filepath.Join(b.work, "syft.json"))
		cmd.Env = append(os.Environ(), "SYFT_CHECK_FOR_APP_UPDATE=false")
		u, err := runUsed(cmd)
		if err != nil {
			return row{}, err
		}
		wall, cpu, rss = append(wall, u.wall), append(cpu, u.cpu), max(rss, u.rssMax)
	}
	return row{
		what:     fmt.Sprintf("— syft %s on the same image, median of %d", version, syftRounds),
		measured: fmt.Sprintf("%.2f s wall, %.2f s CPU, %d MiB peak", median(wall).Seconds(), median(cpu).Seconds(), rss>>20),
	}, nil
}

func writeLayout(dir, layer string) error {
	l, err := tarball.LayerFromFile(layer)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(image)
}
