package index_test

import (
	"archive/tar"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestCompose runs testdata/compose/*.txtar: sections "layer" hold one entry
// per line, lowest layer first; "want" is what shows on top.
//
//	npm DIR NAME VERSION      DIR/package.json
//	apk PATH NAME=VERSION…    a package database
//	release PATH ID VERSION   an os-release file
//	file PATH | exec PATH     a text file, without and with execute permission
//	dir PATH | symlink PATH TARGET | link PATH TARGET | device PATH
//	whiteout PATH             PATH is created as an empty file as written
func TestCompose(t *testing.T) {
	text.Run(t, "testdata/compose/*.txtar", 1, func(t *testing.T, a *txtar.Archive) string {
		layers := layersIn(t, a, parseEntry)
		var cfg gatehouse.ImageConfig
		for _, l := range layers {
			cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
		}
		return printInventory(layers, index.Compose(layers, cfg, ""))
	})
}

// layersIn makes a layer of each part besides want; parse reads a line.
func layersIn(t *testing.T, a *txtar.Archive, parse func(*testing.T, []string) entry) (layers []gatehouse.LayerInventory) {
	t.Helper()
	for _, section := range a.Files {
		if section.Name == "want" {
			continue
		}
		var entries []entry
		for line := range strings.Lines(string(section.Data)) {
			entries = append(entries, parse(t, strings.Fields(line)))
		}
		layers = append(layers, layerOf(t, index.Limits{}, tarOf(t, entries...)))
	}
	return layers
}

func parseEntry(t *testing.T, f []string) entry {
	t.Helper()
	switch f[0] {
	case "npm":
		return entry{name: f[1] + "/package.json", body: npmBody(f[2], f[3])}
	case "apk":
		return entry{name: f[1], body: apkBody(f[2:]...)}
	case "release":
		return entry{name: f[1], body: fmt.Sprintf("ID=%s\nVERSION_ID=%q\n", f[2], f[3])}
	case "file", "whiteout":
		return entry{name: f[1]}
	case "exec":
		return entry{name: f[1], body: "#!/bin/sh\n", mode: 0o755}
	case "dir":
		return entry{name: f[1] + "/", kind: tar.TypeDir, mode: 0o755}
	case "symlink":
		return entry{name: f[1], kind: tar.TypeSymlink, link: f[2]}
	case "link":
		return entry{name: f[1], kind: tar.TypeLink, link: f[2]}
	case "device":
		return entry{name: f[1], kind: tar.TypeChar}
	}
	t.Fatalf("unknown entry %q", f)
	return entry{}
}

func printInventory(layers []gatehouse.LayerInventory, inv gatehouse.Inventory) string {
	var b strings.Builder
	if inv.Distro.ID != "" {
		fmt.Fprintf(&b, "distro %s %s\n", inv.Distro.ID, inv.Distro.VersionID)
	}
	for _, p := range inv.Packages {
		layer := -1
		for i, l := range layers {
			if l.DiffID == p.Layer {
				layer = i
			}
		}
		fmt.Fprintf(&b, "%s %s %s %s layer %d\n", p.Type, p.Name, p.Version, p.Path, layer)
	}
	for _, h := range index.Hidden(layers) {
		fmt.Fprintf(&b, "hidden %d %s\n", h.Layer, layers[h.Layer].Sets[h.Set].Path)
	}
	for _, r := range inv.Incomplete {
		fmt.Fprintf(&b, "incomplete: %s\n", r)
	}
	return b.String()
}

func TestCheckDiffIDs(t *testing.T) {
	a := layerOf(t, index.Limits{}, tarOf(t, entry{name: "a"}))
	b := layerOf(t, index.Limits{}, tarOf(t, entry{name: "b"}))
	config := func(ids ...gatehouse.Digest) (c gatehouse.ImageConfig) {
		c.RootFS.DiffIDs = ids
		return c
	}
	tests := []struct {
		name   string
		layers []gatehouse.LayerInventory
		cfg    gatehouse.ImageConfig
		want   string
	}{
		{"equal", []gatehouse.LayerInventory{a, b}, config(a.DiffID, b.DiffID), ""},
		{"swapped", []gatehouse.LayerInventory{a, b}, config(b.DiffID, a.DiffID), "the declared diffID differs from the computed one"},
		{"one too few", []gatehouse.LayerInventory{a, b}, config(a.DiffID), "declares 1 diffIDs, but the image has 2 layers"},
		{"none declared", []gatehouse.LayerInventory{a}, config(), "declares 0 diffIDs"},
		{"not computed", []gatehouse.LayerInventory{{}}, config(a.DiffID), "could not be computed"},
		{"a directory", []gatehouse.LayerInventory{{Complete: true}}, config(), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := index.CheckDiffIDs(test.layers, test.cfg)
			inv := index.Compose(test.layers, test.cfg, "")
			if test.want == "" {
				if err != nil || !inv.Complete {
					t.Errorf("%v, complete %v %q", err, inv.Complete, inv.Incomplete)
				}
				return
			}
			if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if inv.Complete || !hasReason(inv.Incomplete, test.want) {
				t.Errorf("complete %v, reasons %q", inv.Complete, inv.Incomplete)
			}
		})
	}
}

// TestComposeZeroLayer: an inventory that nobody filled in proves nothing.
func TestComposeZeroLayer(t *testing.T) {
	if inv := index.Compose([]gatehouse.LayerInventory{{}}, gatehouse.ImageConfig{}, ""); inv.Complete {
		t.Error("the zero layer composed to a complete image")
	}
}

func TestComposeOtherIndexer(t *testing.T) {
	a := layerOf(t, index.Limits{}, tarOf(t, entry{name: "a"}))
	b := a
	b.Indexer = "gatehouse/0"
	var cfg gatehouse.ImageConfig
	cfg.RootFS.DiffIDs = []gatehouse.Digest{a.DiffID, b.DiffID}
	if inv := index.Compose([]gatehouse.LayerInventory{a, b}, cfg, ""); inv.Complete {
		t.Error("layers of two indexers composed to a complete image")
	}
}
