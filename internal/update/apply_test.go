package update

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

// osvZip is an export of OSV.dev with n records.
func osvZip(t testing.TB, prefix string, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := range n {
		w, err := z.Create(fmt.Sprintf("%s-%d.json", prefix, i))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, `{"schema_version":"1.6.0","id":"%s-%d","modified":"2026-03-04T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"p%d"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`, prefix, i, i)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read is a build that takes everything and remembers it.
func read(into map[string]int) func([]gatehouse.Publication) error {
	return func(pubs []gatehouse.Publication) error {
		clear(into)
		for _, p := range pubs {
			if !p.Whole || p.Version == "" || p.Source == "" {
				return fmt.Errorf("publication %+v", p)
			}
			for _, err := range p.Records {
				if err != nil {
					return fmt.Errorf("feed %s: %w", p.Feed, err)
				}
				into[p.Feed]++
			}
		}
		return nil
	}
}

// TestBrokenFeedLeavesTheOthers, which come into force together without it.
func TestBrokenFeedLeavesTheOthers(t *testing.T) {
	whole := osvZip(t, "A", 3)
	feeds := []Feed{
		{Name: "osv/a", kind: NameOSV, url: serve(t, &source{body: whole, etag: `"a"`}), sizeMax: 1 << 20},
		{Name: "osv/cut", kind: NameOSV, url: serve(t, &source{body: whole[:len(whole)/2], etag: `"b"`}), sizeMax: 1 << 20},
		{Name: "osv/text", kind: NameOSV, url: serve(t, &source{body: []byte("<html>sorry</html>"), etag: `"c"`}), sizeMax: 1 << 20},
		{Name: "osv/z", kind: NameOSV, url: serve(t, &source{body: osvZip(t, "Z", 2), etag: `"d"`}), sizeMax: 1 << 20},
	}
	f, got := newFetcher(t, nil), map[string]int{}
	results := f.Fetch(t.Context(), feeds, nil, nothing)
	if err := f.Apply(t.Context(), results, read(got), nil); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got["osv/a"] != 3 || got["osv/z"] != 2 {
		t.Errorf("built of %v", got)
	}
	for _, r := range results {
		r.Discard()
		bad := r.Feed.Name == "osv/cut" || r.Feed.Name == "osv/text"
		if (r.Err != nil) != bad || (r.State.Failures > 0) != bad || (r.State.Error != "") != bad {
			t.Errorf("%s: %+v, %v", r.Feed.Name, r.State, r.Err)
		}
	}
}

// TestRefusedRecord: a feed with a record that cannot be stored is to blame, not
// those beside it.
func TestRefusedRecord(t *testing.T) {
	feeds := []Feed{
		{Name: "osv/a", kind: NameOSV, url: serve(t, &source{body: osvZip(t, "A", 3), etag: `"a"`}), sizeMax: 1 << 20},
		{Name: "osv/b", kind: NameOSV, url: serve(t, &source{body: osvZip(t, "B", 3), etag: `"b"`}), sizeMax: 1 << 20},
		{Name: "kev", kind: NameKEV, url: serve(t, &source{body: []byte(`{"catalogVersion":"1","dateReleased":"2026-01-01T00:00:00Z","count":0,"vulnerabilities":[]}`), etag: `"c"`}), sizeMax: 1 << 20},
		{Name: "epss", kind: NameEPSS, url: serve(t, &source{body: osvZip(t, "E", 3), etag: `"d"`}), sizeMax: 1 << 20},
	}
	f, got := newFetcher(t, nil), map[string]int{}
	results := f.Fetch(t.Context(), feeds, nil, nothing)
	err := f.Apply(t.Context(), results, func(pubs []gatehouse.Publication) error {
		for _, p := range pubs {
			for a := range p.Records {
				if a.ID == "A-1" {
					return gatehouse.Errorf(gatehouse.CodeInvalid, "A-1 is not storable")
				}
			}
		}
		return read(got)(pubs)
	}, nil)
	if err != nil || len(got) != 1 || got["osv/b"] != 3 {
		t.Errorf("%v, built of %v", err, got)
	}
	for _, r := range results {
		r.Discard()
		if (r.Err == nil) != (r.Feed.Name == "osv/b") {
			t.Errorf("%s: %v", r.Feed.Name, r.Err)
		}
	}
}

// TestFeedThatShrank to less than half is not believed, unless somebody says so.
func TestFeedThatShrank(t *testing.T) {
	for _, c := range []struct {
		had, has int
		forced   bool
		ok       bool
	}{
		{had: 0, has: 1, ok: true},
		{had: 99, has: 1, ok: true}, // few records come and go
		{had: 200, has: 100, ok: true},
		{had: 200, has: 99},
		{had: 200, has: 99, forced: true, ok: true},
	} {
		f, got := newFetcher(t, nil), map[string]int{}
		u := serve(t, &source{body: osvZip(t, "A", c.has), etag: `"v"`})
		feeds := []Feed{{Name: "osv/a", kind: NameOSV, url: u, sizeMax: 1 << 20}}
		states := map[string]State{"osv/a": {Source: u.String(), Forced: c.forced}}
		results := f.Fetch(t.Context(), feeds, states, func(string) (string, int) { return "", c.had })
		err := f.Apply(t.Context(), results, read(got), nil)
		r := results[0]
		r.Discard()
		if err != nil || (r.Err == nil) != c.ok || !c.ok && !strings.Contains(r.State.Error, "looks cut off") {
			t.Errorf("%+v: %v, %v", c, err, r.Err)
		}
	}
}

// TestOvertaken: where others import meanwhile, the same files are built again;
// where the building itself fails, all feeds do, and the next run asks again.
func TestOvertaken(t *testing.T) {
	f := newFetcher(t, nil)
	feeds := []Feed{{Name: "osv/a", kind: NameOSV, url: serve(t, &source{body: osvZip(t, "A", 1), etag: `"v"`}), sizeMax: 1 << 20}}
	conflict := gatehouse.Errorf(gatehouse.CodeConflict, "overtaken")
	for _, c := range []struct {
		fails, builds int
		err           error
		want          error
	}{
		{fails: overtakenMax, builds: overtakenMax + 1, err: conflict},
		{fails: 100, builds: overtakenMax + 1, err: conflict, want: conflict},
		{fails: 1, builds: 1, err: errors.ErrUnsupported, want: errors.ErrUnsupported},
	} {
		results := f.Fetch(t.Context(), feeds, nil, nothing)
		builds, got := 0, map[string]int{}
		err := f.Apply(t.Context(), results, func(pubs []gatehouse.Publication) error {
			if builds++; builds <= c.fails {
				return c.err
			}
			return read(got)(pubs)
		}, nil)
		if !errors.Is(err, c.want) || builds != c.builds || (results[0].State.Failures == 0) != (c.want == nil) {
			t.Errorf("%+v: %d builds, %v, %+v", c, builds, err, results[0].State)
		}
		results[0].Discard()
	}
	if err := f.Apply(t.Context(), nil, nil, nil); err != nil {
		t.Errorf("nothing new: %v", err)
	}
}
