package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	tagLimit    = 20  // times the peer, for a page
	flatLimit   = 0.8 // of the speed at few tags: what differs by less is noise
	tagsPerPut  = 100 // that our server takes with one manifest
	tagPageSize = 100
	tagTime     = 700 * time.Millisecond
)

// tagCounts are the repositories: how many tags each holds while manifests are
// put into it.
var tagCounts = []int{10, 1_000, 10_000}

func tagRepo(count int) string { return fmt.Sprintf("bench/tags-%d", count) }

func tagName(i int) string { return fmt.Sprintf("v%05d", i) }

// measureTags lists a page of many tags, and puts manifests under tags of
// repositories that hold few and many of them.
func measureTags(ctx context.Context, b *bench) (rows []row, err error) {
	p, err := startPair(ctx, b, "tags")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	img, err := newImage(1, 1<<10)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	for _, count := range tagCounts {
		if err := p.seedTags(img, tagRepo(count), count); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(b.log, "    seeded tags in %.0f s\n", time.Since(start).Seconds())
	if err := settled(p.ours); err != nil {
		return nil, err
	}
	if rows, err = tagPages(ctx, p); err != nil {
		return rows, err
	}
	more, err := tagPuts(ctx, p, img)
	return append(rows, more...), err
}

// seedTags fills a repository on both servers.
func (p *pair) seedTags(img image, repo string, count int) error {
	tags := make([]string, count)
	for i := range tags {
		tags[i] = tagName(i)
	}
	if err := p.each(func(c *client) error { return img.push(c, repo, tags[0]) }); err != nil {
		return err
	}
	if err := p.peer.seedTags(repo, digestOf(img.manifest), tags); err != nil {
		return err
	}
	c, err := dial(p.ours)
	if err != nil {
		return err
	}
	defer c.close()
	for rest := tags; len(rest) > 0; {
		n := min(tagsPerPut, len(rest))
		if err := c.pushManifest(repo, digestOf(img.manifest)+"?tag="+strings.Join(rest[:n], "&tag="), img.manifest); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// tagPages lists pages throughout the largest repository.
func tagPages(ctx context.Context, p *pair) (rows []row, err error) {
	count := tagCounts[len(tagCounts)-1]
	repo := tagRepo(count)
	page := func(c *client, n int) error {
		first := n * 37 * tagPageSize % (count - tagPageSize)
		a, err := c.want(http.StatusOK, "GET", repo, fmt.Sprintf("/v2/%s/tags/list?n=%d&last=%s", repo, tagPageSize, tagName(first)), nil)
		if err != nil {
			return err
		}
		var list struct{ Tags []string }
		if err := json.Unmarshal(a.body, &list); err != nil {
			return err
		}
		if len(list.Tags) != tagPageSize || list.Tags[0] != tagName(first+1) {
			return fmt.Errorf("%s lists %d tags after %s", c.target.name, len(list.Tags), tagName(first))
		}
		return nil
	}
	for _, n := range connections {
		got, err := rounds(ctx, pullRounds, load{clients: n, time: tagTime, op: page}, p.ours, p.theirs)
		if err != nil {
			return rows, err
		}
		what := fmt.Sprintf("tags/list?n=%d at %d tags, %s, beside %s", tagPageSize, count, over(n), p.theirs.name)
		rows = append(rows, beside(what, tagLimit, p.ours, p.theirs, got)...)
	}
	return rows, nil
}

// tagPuts puts new manifests, each under the next tag of the repository, so
// that the number of tags stays what it is.
func tagPuts(ctx context.Context, p *pair, img image) (rows []row, err error) {
	var serial atomic.Int64
	put := func(count int) load {
		return load{clients: 1, time: tagTime, settle: settled, op: func(c *client, _ int) error {
			n := serial.Add(1)
			return c.pushManifest(tagRepo(count), tagName(int(n*7919)%count), img.variant(n))
		}}
	}
	list := map[int][][]measured{}
	for _, count := range tagCounts {
		if list[count], err = rounds(ctx, pullRounds, put(count), p.ours, p.theirs); err != nil {
			return rows, err
		}
		what := fmt.Sprintf("PUT manifest and tag at %d tags, beside %s", count, p.theirs.name)
		rows = append(rows, beside(what, atWorst, p.ours, p.theirs, list[count])...)
	}
	few, many := tagCounts[0], tagCounts[len(tagCounts)-1]
	// Both ends of the flat line belong into one round.
	ends := make([][]measured, 2)
	for range pullRounds {
		for i, count := range []int{few, many} {
			m, err := put(count).run(ctx, p.ours)
			if err != nil {
				return rows, err
			}
			ends[i] = append(ends[i], m)
		}
	}
	rate, cpu := ratio(ends[1], ends[0])
	return append(rows, atLeast(fmt.Sprintf("PUT manifest and tag, speed at %d tags against %d", many, few), rate, flatLimit, "x"),
		row{what: "— CPU at few tags against many", measured: short(cpu) + " x"}), nil
}
