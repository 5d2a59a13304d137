package pipeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// TestPushesAndFeedsTogether pushes and publishes at once, and then compares
// every image with what matching it whole from the start would say.
func TestPushesAndFeedsTogether(t *testing.T) {
	h := open(t, t.TempDir()).work()
	const pushers, images, feeds = 4, 12, 10
	type pushed struct {
		digest gatehouse.Digest
		layers []gatehouse.LayerInventory
		cfg    gatehouse.ImageConfig
	}
	all := make([][]pushed, pushers)
	var g errgroup.Group
	for p := range pushers {
		g.Go(func() error {
			for i := range images {
				n := p*images + i
				base, baseID := layer(t, osRelease("alpine", []string{"3.15.0", "3.16.0"}[n%2]), apk(fmt.Sprintf("zlib 1.2.%d-r0", n%5)))
				app, appID := layer(t, npm("minimist", fmt.Sprintf("1.2.%d", n%7)), npm("lodash", fmt.Sprintf("4.%d.0", n%3)))
				out := pushed{cfg: gatehouse.ImageConfig{}}
				out.cfg.RootFS.DiffIDs = []gatehouse.Digest{baseID, appID}
				var err error
				if out.digest, err = h.tryPush(gatehouse.Repo(fmt.Sprintf("p%d/i%d", p, i)), [][]byte{base, app}, out.cfg.RootFS.DiffIDs, nil); err != nil {
					return err
				}
				for _, b := range [][]byte{base, app} {
					inv, err := index.Layer(context.Background(), bytes.NewReader(b), index.DefaultLimits(), index.All())
					if err != nil {
						return err
					}
					out.layers = append(out.layers, inv)
				}
				all[p] = append(all[p], out)
			}
			return nil
		})
	}
	g.Go(func() error {
		for i := range feeds {
			name, space := []string{"minimist", "lodash", "zlib"}[i%3], "npm"
			if name == "zlib" {
				space = "Alpine:v3.16"
			}
			fixed := map[string]string{"minimist": "1.2.%d", "lodash": "4.%d.0", "zlib": "1.2.%d-r0"}[name]
			if _, err := h.tryImport(flaw(fmt.Sprintf("CVE-2026-%d", i/2), space, name, fmt.Sprintf(fixed, i))); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	last := h.publish(flaw("CVE-2026-99", "npm", "minimist", "1.2.3"))
	_, file, release, err := h.advisories.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	found := 0
	for _, ps := range all {
		for _, p := range ps {
			inv := index.Compose(p.layers, p.cfg, p.digest)
			want, err := match.Findings(t.Context(), inv.Distro, inv.Packages, file)
			if err != nil {
				t.Fatal(err)
			}
			names := []string{}
			for _, f := range want.Findings {
				names = append(names, f.ID+" "+f.Package.Name+" "+f.Package.Version)
			}
			slices.Sort(names)
			h.eventually("the image "+string(p.digest), func() bool { return !h.indexed(p.digest).IndexedAt.IsZero() })
			if diff := cmp.Diff(names, h.vulns(p.digest)); diff != "" {
				t.Errorf("%s by generation %d:\n%s", p.digest, last.ID, diff)
			}
			found += len(names)
		}
	}
	if found == 0 {
		t.Error("nothing was found at all: the test shows nothing")
	}
}

// bothWays runs f in the two ways that are meant for many changes.
func bothWays(t *testing.T, f func(*testing.T)) {
	pipeline.SetFew(t, 0)
	t.Run("ahead", f)
	t.Run("while it is stored", func(t *testing.T) {
		pipeline.SetAheadMax(t, 0)
		f(t)
	})
}

// TestMatchOfEverything does the same in the ways that are meant for many changes.
func TestMatchOfEverything(t *testing.T) { bothWays(t, TestPushesAndFeedsTogether) }

// TestMatchOfEverythingTells compares what a match of everything tells with what
// it does: one event for each flaw of a package that came or went, none for
// those that stay, and when each was first seen.
func TestMatchOfEverythingTells(t *testing.T) { bothWays(t, matchOfEverythingTells) }

func matchOfEverythingTells(t *testing.T) {
	h := open(t, t.TempDir()).work()
	l, d := layer(t, npm("minimist", "1.2.5"), npm("lodash", "4.0.0"), npm("untouched", "1.0.0"))
	img := h.push("a/b", [][]byte{l}, []gatehouse.Digest{d})
	h.indexed(img)
	events := func() (out []string) {
		err := h.db.Read(t.Context(), func(tx *db.Tx) error {
			list, err := tx.Events(t.Context(), 0, 1000)
			out = nil
			for _, e := range list {
				var p struct{ Vulnerability, Package string }
				if e.Type == gatehouse.EventVulnNew || e.Type == gatehouse.EventVulnFixed {
					if err := json.Unmarshal(e.Payload, &p); err != nil {
						return err
					}
					out = append(out, strings.TrimSpace(fmt.Sprint(e.Type, " ", p.Vulnerability)))
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	h.publish(flaw("CVE-2026-0001", "npm", "minimist", "1.2.6"), flaw("CVE-2026-0002", "npm", "lodash", "5.0.0"))
	h.publish(flaw("CVE-2026-0001", "npm", "minimist", "1.2.6"), flaw("CVE-2026-0002", "npm", "lodash", "3.0.0"), flaw("CVE-2026-0003", "npm", "minimist", "2.0.0"))
	want := []string{
		"vulnerability.fixed CVE-2026-0002", "vulnerability.new CVE-2026-0001", "vulnerability.new CVE-2026-0002", "vulnerability.new CVE-2026-0003",
	}
	h.eventually("the events", func() bool {
		got := events()
		slices.Sort(got)
		return slices.Equal(got, want)
	})
	if got := h.vulns(img); !slices.Equal(got, []string{"CVE-2026-0001 minimist 1.2.5", "CVE-2026-0003 minimist 1.2.5"}) {
		t.Errorf("findings %q", got)
	}
}
