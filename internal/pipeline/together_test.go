package pipeline_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
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
