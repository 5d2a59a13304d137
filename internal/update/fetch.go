package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
)

// Result is what became of one feed in one run.
type Result struct {
	Feed Feed
	// State is the one to keep if nothing goes wrong with the file later:
	// [Fetcher.Failed] is the other one.
	State State
	// Skipped: the feed was not looked at, since it was not due.
	Skipped bool
	// Err is why the attempt brought nothing; State says so already.
	Err error
	// Version is how the source names what File holds.
	Version string
	// File is what the source has that is new, open for reading; nil where
	// nothing has changed. Discard closes it.
	File *os.File
	Size int64 // bytes

	before State
	had    int // records before
	holds  int // records of a whole database, by its own word
	temp   bool
}

// Discard closes and removes the file.
func (r *Result) Discard() {
	if r.File == nil {
		return
	}
	discard(r.File)
	if r.temp {
		_ = os.Remove(r.File.Name()) // what stays goes with the next start
	}
	r.File = nil
}

// Have tells what an advisory database holds of a feed: the version that
// [Result] gave it ("" for nothing), and the number of its records.
type Have func(feed string) (version string, records int)

// Fetch looks at those feeds that are due by their states. What have has is not
// fetched again. Feeds are independent of each other: the failure of one is told
// in its result. The caller discards every result.
func (f *Fetcher) Fetch(ctx context.Context, feeds []Feed, states map[string]State, have Have) []*Result {
	out := make([]*Result, len(feeds))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, feed := range feeds {
		before := states[feed.Name]
		known, records := have(feed.Name)
		if before.Source != feed.Source() { // it has moved: what the old place said means nothing
			before = State{Forced: before.Forced}
			if !ofContent(known) {
				known = ""
			}
		}
		before.Feed, before.Source = feed.Name, feed.Source()
		r := &Result{Feed: feed, State: before, before: before, had: records}
		out[i] = r
		if before.DueAt().After(f.time()) {
			r.Skipped = true
			continue
		}
		g.Go(func() error {
			f.fetch(ctx, r, known)
			return nil
		})
	}
	_ = g.Wait() // nobody returns an error
	return out
}

// ofContent reports whether a version names bytes, wherever they come from.
func ofContent(version string) bool {
	return strings.HasPrefix(version, "digest:") || strings.HasPrefix(version, "sha256:")
}

// fetch looks at one feed.
func (f *Fetcher) fetch(ctx context.Context, r *Result, known string) {
	if f.Progress != nil {
		f.Progress(r.Feed)
	}
	if r.before.Forced {
		known = ""
	}
	version, err := f.bring(ctx, r, known)
	now := f.time()
	switch {
	case err == nil:
		r.Version, r.State.Absent = version, false
		r.State = r.State.succeeded(now, f.interval(), f.jitter())
	case errors.Is(err, errUnchanged):
		r.Discard()
		r.State.Absent = false
		r.State = r.State.succeeded(now, f.interval(), f.jitter())
	case r.Feed.optional && gatehouse.CodeOf(err) == gatehouse.CodeNotFound:
		r.Discard()
		r.State.Absent = true
		r.State = r.State.succeeded(now, f.interval(), f.jitter())
	default:
		f.Failed(r, err)
	}
}

// Failed turns r into the failure of its feed: what was in force stays, and the
// next run asks for the same again.
func (f *Fetcher) Failed(r *Result, err error) {
	r.Discard()
	r.Err, r.State = err, r.before.failed(f.time(), err, f.interval(), f.jitter())
}

// bring puts what is new into r.File.
func (f *Fetcher) bring(ctx context.Context, r *Result, known string) (validator string, err error) {
	if r.Feed.err != nil {
		return "", r.Feed.err
	}
	if u := r.Feed.url; u != nil && u.Scheme == "file" {
		return r.local(u.Path, known)
	}
	if r.Feed.kind == NameGatehouse {
		return f.database(ctx, r)
	}
	if r.File, err = os.CreateTemp(f.Dir, "feed-*.tmp"); err != nil {
		return "", diskFailed(err)
	}
	r.temp = true
	switch {
	case r.Feed.url == nil:
		validator, err = f.artifact(ctx, r.Feed.repos, known, trivyLayer, r.Feed.sizeMax, r.File)
	case r.Feed.kind == NameNVD:
		validator, err = f.nvd(ctx, r.Feed, known, r.File)
	default:
		validator, err = f.get(ctx, r.Feed.url, known, r.Feed.sizeMax, r.File)
	}
	if err != nil {
		return "", err
	}
	r.Size, err = length(r.File)
	return validator, err
}

// local takes the file of a mirror directory as it lies there.
func (r *Result) local(path, known string) (validator string, err error) {
	if r.File, err = os.Open(path); errors.Is(err, os.ErrNotExist) {
		return "", gatehouse.Errorf(gatehouse.CodeNotFound, "the mirror does not have %s", path)
	} else if err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the mirror: %w", err)
	}
	info, err := r.File.Stat()
	switch {
	case err != nil:
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the mirror: %w", err)
	case !info.Mode().IsRegular():
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a regular file", path)
	case info.Size() > r.Feed.sizeMax:
		return "", gatehouse.Errorf(gatehouse.CodeTooLarge, "%s is larger than the %d bytes that it may have", path, r.Feed.sizeMax)
	}
	validator = fmt.Sprintf("file:%d-%d", info.ModTime().UnixNano(), info.Size())
	if validator == known {
		return validator, errUnchanged
	}
	r.Size = info.Size()
	return validator, nil
}

// nvd downloads one of NVD's files. Each has a small one beside it with the
// sha256 of what is in it; a mirror may lack those.
func (f *Fetcher) nvd(ctx context.Context, feed Feed, known string, out *os.File) (validator string, err error) {
	sum, err := f.nvdSum(ctx, feed)
	if err != nil {
		return "", err
	}
	if sum == "" {
		return f.get(ctx, feed.url, known, feed.sizeMax, out)
	}
	if known == "sha256:"+sum {
		return known, errUnchanged
	}
	if _, err := f.get(ctx, feed.url, "", feed.sizeMax, out); err != nil {
		return "", err
	}
	return "sha256:" + sum, checkUnpacked(out, sum)
}

func (f *Fetcher) nvdSum(ctx context.Context, feed Feed) (string, error) {
	meta := *feed.url
	meta.Path = meta.Path[:len(meta.Path)-len(".json.gz")] + ".meta"
	meta.RawPath = ""
	tmp, err := os.CreateTemp(f.Dir, "feed-*.tmp")
	if err != nil {
		return "", diskFailed(err)
	}
	defer os.Remove(tmp.Name())
	defer discard(tmp)
	_, err = f.get(ctx, &meta, "", metaSizeMax, tmp)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.NewSectionReader(tmp, 0, metaSizeMax))
	if err != nil {
		return "", diskFailed(err)
	}
	sum, ok := nvdMeta(b)
	if !ok {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds no sha256", redact(&meta))
	}
	return sum, nil
}

func redact(u *url.URL) string { return u.Host + u.Path }

func length(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, diskFailed(err)
	}
	return info.Size(), nil
}
