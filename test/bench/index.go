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
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"

	"github.com/gatehouse-dev/gatehouse/internal/index"
)

const (
	indexRounds = 7  // odd: the median is one of them
	floorShare  = 60 // % of the floor's speed
)

// measureIndex compares our indexing of a Debian layer with the least that
// anyone must do with it.
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
	return []row{
		atLeast("index a Debian layer, speed against the floor", 100*speed(median(ours))/speed(median(floors)), floorShare, "%"),
		{what: fmt.Sprintf("— index (%d packages, %.0f MiB of tar), median of %d", packages, float64(size)/(1<<20), indexRounds),
			measured: fmt.Sprintf("%.0f MiB/s, %.2f s wall, %.2f s CPU", speed(median(ours)), median(ours).Seconds(), median(cpu).Seconds())},
		{what: "— floor: one goroutine gunzips, hashes, reads every body",
			measured: fmt.Sprintf("%.0f MiB/s, %.2f s wall", speed(median(floors)), median(floors).Seconds())},
	}, nil
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

// writeLayout writes an OCI layout with one image of that one layer.
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
