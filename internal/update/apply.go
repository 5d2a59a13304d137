package update

import (
	"context"
	"errors"
	"iter"
	"os"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed"
)

// A feed that held this many records, and has lost more than half of them, was
// cut off somewhere on its way: it is not believed unless its state is Forced.
const (
	shrinkFrom = 100
	shrinkTo   = 0.5
)

// overtakenMax is how often a generation is built anew because others imported
// theirs meanwhile.
const overtakenMax = 3

// formats is what each feed's file must turn out to be.
var formats = map[string]string{
	NameOSV: gatehouse.FormatOSV, NameTrivy: gatehouse.FormatTrivyDB, NameNVD: gatehouse.FormatNVD,
	NameKEV: gatehouse.FormatKEV, NameEPSS: gatehouse.FormatEPSS,
}

// Apply reads the files of results and hands what they publish to build, all of
// it at once, so that one generation comes of one run. A feed whose file cannot
// be read is made a failure, and the others are built without it; build may
// therefore be called several times, and the records can be read once each time.
// It is not called where nothing is new, and once more where it was overtaken
// (CodeConflict). Where build itself fails, all feeds do, and Apply returns its
// error.
//
// A whole database is handed to replace instead, which may take the file away;
// forced says that it is wanted also if it is older than what is there.
func (f *Fetcher) Apply(ctx context.Context, results []*Result, build func([]gatehouse.Publication) error, replace func(file *os.File, forced bool) error) error {
	for _, r := range results {
		if r.File == nil || r.Feed.kind != NameGatehouse {
			continue
		}
		err := shrunk(r, r.holds)
		if err == nil {
			err = replace(r.File, r.before.Forced)
		}
		if err != nil {
			f.Failed(r, err)
		}
		return ctx.Err() // it is the only feed
	}
	for overtaken := 0; ; {
		var fresh []*Result
		for _, r := range results {
			if r.File != nil {
				fresh = append(fresh, r)
			}
		}
		if len(fresh) == 0 {
			return nil
		}
		err := f.apply(ctx, fresh, build)
		var bad *feedError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &bad) && ctx.Err() == nil:
			f.Failed(bad.result, bad.err)
		case gatehouse.CodeOf(err) == gatehouse.CodeConflict && overtaken < overtakenMax:
			overtaken++
		default:
			for _, r := range fresh {
				f.Failed(r, err)
			}
			return err
		}
	}
}

// feedError is an error that one feed is to blame for.
type feedError struct {
	result *Result
	err    error
}

func (e *feedError) Error() string { return e.result.Feed.Name + ": " + e.err.Error() }
func (e *feedError) Unwrap() error { return e.err }

// apply opens all files and builds once.
func (f *Fetcher) apply(ctx context.Context, fresh []*Result, build func([]gatehouse.Publication) error) error {
	var pubs []gatehouse.Publication
	var reading *Result // whose record build refused
	for _, r := range fresh {
		file, err := feed.Open(ctx, r.Feed.FileName(), r.File, r.Size, feed.Options{TempDir: f.Dir})
		if err != nil {
			return &feedError{r, err}
		}
		defer discard(file)
		if want := formats[r.Feed.kind]; file.Format != want {
			return &feedError{r, gatehouse.Errorf(gatehouse.CodeInvalid, "the file is not %s but %s", want, file.Format)}
		}
		p := file.Publication
		p.Feed, p.Whole, p.Source, p.Version = r.Feed.Name, true, r.Feed.Source(), r.Version
		switch {
		case p.Records != nil:
			p.Records = watched(r, p.Records, func() { reading = r })
		default:
			if err := shrunk(r, len(p.KEV)+len(p.EPSS)); err != nil {
				return &feedError{r, err}
			}
		}
		pubs = append(pubs, p)
	}
	err := build(pubs)
	var known *feedError
	if reading != nil && gatehouse.CodeOf(err) == gatehouse.CodeInvalid && !errors.As(err, &known) {
		return &feedError{reading, err}
	}
	return err
}

// watched marks the errors of records with their feed, and counts them. refused
// is told when the reader wants no more of them.
func watched(r *Result, records iter.Seq2[gatehouse.Advisory, error], refused func()) iter.Seq2[gatehouse.Advisory, error] {
	return func(yield func(gatehouse.Advisory, error) bool) {
		n := 0
		for a, err := range records {
			if err != nil {
				yield(a, &feedError{r, err})
				return
			}
			n++
			if !yield(a, nil) {
				refused()
				return
			}
		}
		if err := shrunk(r, n); err != nil {
			yield(gatehouse.Advisory{}, &feedError{r, err})
		}
	}
}

func shrunk(r *Result, n int) error {
	if n == 0 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "it has no records")
	}
	if r.before.Forced || r.had < shrinkFrom || float64(n) >= shrinkTo*float64(r.had) {
		return nil
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "it has %d records and had %d: that looks cut off", n, r.had).
		WithHint("if it is meant, say `gatehouse db update --force`")
}
