package match_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/google/go-cmp/cmp"
)

// listed is a store of records in memory.
type listed []gatehouse.Advisory

func (l listed) For(context.Context, string, string) ([]gatehouse.Advisory, error) { return l, nil }
func (l listed) Named(context.Context, string) ([]gatehouse.Advisory, error)       { return l, nil }
func (l listed) Covers(_ context.Context, space string) (bool, error)              { return space != "", nil }

// FuzzFindings matches whatever package by whatever records: nothing panics, the
// answer is the same each time and whatever the order of the records, and each
// finding is there once.
func FuzzFindings(f *testing.F) {
	f.Add([]byte(`[{"id":"GHSA-1","aliases":["CVE-2024-0001"],"affected":[{"package":{"ecosystem":"npm","name":"a"},"versions":["1"],"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"2.0.0"}]}]}]}]`),
		[]byte(`{"type":"npm","name":"a","version":"1.0.0"}`), "debian", "12")
	f.Add([]byte(`[{"id":"ALASKERNEL-5.10-2024-1","affected":[{"package":{"ecosystem":"Amazon Linux:2","name":"kernel"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"5.10.2-1.module+1"}]}]}]},
		{"id":"B","upstream":["CVE-2024-0001","CVE-2024-0002"],"affected":[{"package":{"ecosystem":"Amazon Linux:2","name":"kernel"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"last_affected":"9"},{"limit":"7"}]}]}]}]`),
		[]byte(`{"type":"rpm","name":"kernel","version":"1:5.10.1-1.el9_2","arch":"x86_64","modularity":"a:b:c","source":"k","sourceVersion":"1"}`), "amzn", "2")
	f.Fuzz(func(t *testing.T, records, pkg []byte, id, release string) {
		var raw []json.RawMessage
		var p gatehouse.Package
		if json.Unmarshal(records, &raw) != nil || json.Unmarshal(pkg, &p) != nil || len(raw) > 20 {
			return
		}
		var list, turned listed
		seen := map[string]bool{}
		for _, r := range raw {
			a, err := osv.Parse(r)
			if err != nil || seen[a.ID] {
				return // a store holds each id once
			}
			seen[a.ID] = true
			list, turned = append(list, a), append(listed{a}, turned...)
		}
		distro := gatehouse.Distro{ID: id, VersionID: release}
		got, err := match.Findings(t.Context(), distro, []gatehouse.Package{p}, list)
		if err != nil {
			t.Fatal(err)
		}
		again, err := match.Findings(t.Context(), distro, []gatehouse.Package{p}, turned)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Errorf("-records as they come +turned round:\n%s", diff)
		}
		there := map[string]bool{}
		for _, f := range got.Findings {
			if there[f.ID] || f.ID == "" {
				t.Errorf("%q is there twice, or has no name", f.ID)
			}
			there[f.ID] = true
		}
	})
}
