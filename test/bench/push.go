package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

const (
	pushRounds    = 5
	pushLayers    = 10
	pushLayerSize = 256 << 10
)

// measurePush pushes images of ten layers that nobody has seen, one image per
// connection at a time. Our server also indexes them, in the background: it is
// waited for after each round, and its CPU time counts.
func measurePush(ctx context.Context, b *bench) (rows []row, err error) {
	p, err := startPair(ctx, b, "push")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	const repo = "bench/app"
	var tag atomic.Int64
	for _, n := range connections {
		images := make([]image, 4+2*n)
		l := load{clients: n, count: len(images), settle: settled}
		l.prepare = func() (err error) {
			for i := range images {
				if images[i], err = newImage(pushLayers, pushLayerSize); err != nil {
					return err
				}
			}
			return nil
		}
		l.op = func(c *client, i int) error { return images[i].push(c, repo, fmt.Sprintf("v%d", tag.Add(1))) }
		got, err := rounds(ctx, pushRounds, l, p.ours, p.theirs)
		if err != nil {
			return rows, err
		}
		what := fmt.Sprintf("push of %d new layers of %d KiB, config and manifest, %s, beside %s", pushLayers, pushLayerSize>>10, over(n), p.theirs.name)
		rows = append(rows, beside(what, atWorst, p.ours, p.theirs, got)...)
	}
	return rows, nil
}
