package index_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// TestImages indexes the real images: distribution, number of packages as the
// image's own package manager counts them, computed digests equal to the
// declared ones.
func TestImages(t *testing.T) {
	tests := []struct {
		name, id, version string
		packages          map[string]int
	}{
		{"alpine-3.10.2.tar", "alpine", "3.10.2", map[string]int{"apk": 14}},
		{"alpine-3.20.3.tar", "alpine", "3.20.3", map[string]int{"apk": 14}},
		{"debian-bullseye.tar", "debian", "11", map[string]int{"deb": 96}},
		{"debian-bookworm.tar", "debian", "12", map[string]int{"deb": 88}},
		{"debian-trixie.tar", "debian", "13", map[string]int{"deb": 78}},
		{"alma8.tar", "almalinux", "8.5", map[string]int{"rpm": 56}},
		{"nodeapp.tar", "alpine", "3.10.2", map[string]int{"apk": 14, "npm": 6}},
		{"whiteout.tar", "alpine", "3.10.2", map[string]int{"apk": 14, "npm": 5}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			img := loadImage(t, test.name)
			layers, inv := indexImage(t, img)
			if !inv.Complete {
				t.Errorf("incomplete: %q", inv.Incomplete)
			}
			if inv.Distro.ID != test.id || inv.Distro.VersionID != test.version {
				t.Errorf("distro %+v, want %s %s", inv.Distro, test.id, test.version)
			}
			counts := map[string]int{}
			for _, p := range inv.Packages {
				counts[p.Type]++
			}
			if d := cmp.Diff(test.packages, counts); d != "" {
				t.Error(d)
			}
			for i, l := range layers {
				if l.DiffID != img.config.RootFS.DiffIDs[i] || l.Blob != img.digests[i] {
					t.Errorf("layer %d: computed %s of %s, declared %s of %s", i, l.DiffID, l.Blob, img.config.RootFS.DiffIDs[i], img.digests[i])
				}
			}
		})
	}
}

// TestInstalledVersions compares names and versions with the expectations,
// which are human-checked or the output of a native tool.
func TestInstalledVersions(t *testing.T) {
	type row struct{ Package, Installed, Source, Path string }
	rows := func(name string) (list []row) {
		b, err := os.ReadFile(filepath.Join(sharedData(t), "expected", name))
		if err != nil {
			t.Fatal(err)
		}
		if b[0] == '{' {
			var all struct {
				Must []row `json:"must_find"`
			}
			unmarshal(t, b, &all)
			return all.Must
		}
		unmarshal(t, b, &list)
		return list
	}
	for _, name := range []string{"alpine-3.10.2", "alma8", "nodeapp", "whiteout"} {
		t.Run(name, func(t *testing.T) {
			_, inv := indexImage(t, loadImage(t, name+".tar"))
			expected := rows(name + ".json")
			if len(expected) == 0 {
				t.Fatal("no expectations")
			}
			for _, want := range expected {
				if !slices.ContainsFunc(inv.Packages, func(p gatehouse.Package) bool {
					return p.Name == want.Package && p.Version == want.Installed &&
						(want.Source == "" || p.SourceName() == want.Source) && (want.Path == "" || p.Path == want.Path)
				}) {
					t.Errorf("no %+v", want)
				}
			}
		})
	}
}

func TestWhiteoutOfRealImageHidesPackage(t *testing.T) {
	layers, inv := indexImage(t, loadImage(t, "whiteout.tar"))
	if slices.ContainsFunc(inv.Packages, func(p gatehouse.Package) bool { return p.Name == "lodash" }) {
		t.Error("lodash was deleted by the third layer")
	}
	hidden := index.Hidden(layers)
	if len(hidden) != 1 || layers[hidden[0].Layer].Sets[hidden[0].Set].Path != "app/node_modules/lodash/package.json" {
		t.Errorf("hidden %+v", hidden)
	}
}

// TestGoBinary builds the program of the test data and reads it back.
func TestGoBinary(t *testing.T) {
	source := filepath.Join(sharedData(t), "images", "gobin-src")
	out := filepath.Join(t.TempDir(), "app", "gobin")
	build := exec.Command("go", "build", "-o", out, ".")
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
	root, err := os.OpenRoot(filepath.Dir(out))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	inv, err := index.Rootfs(t.Context(), root.FS(), index.Limits{}, index.All())
	if err != nil || !inv.Complete || len(inv.Sets) != 1 {
		t.Fatalf("%v %+v", err, inv)
	}
	got := map[string]string{}
	for _, p := range inv.Sets[0].Packages {
		if p.Type != "golang" {
			t.Errorf("type %s of %s", p.Type, p.Name)
		}
		got[p.Name] = p.Version
	}
	b, err := os.ReadFile(filepath.Join(sharedData(t), "expected", "gobin.json"))
	if err != nil {
		t.Fatal(err)
	}
	var expected []struct{ Module, Installed string }
	if err := json.Unmarshal(b, &expected); err != nil || len(expected) == 0 {
		t.Fatalf("expectations: %v", err)
	}
	for _, want := range expected {
		if want.Module != "stdlib" && got[want.Module] != want.Installed {
			t.Errorf("%s: %q, want %q", want.Module, got[want.Module], want.Installed)
		}
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(runtime.Version(), "go"), " ")
	if got["stdlib"] != version {
		t.Errorf("stdlib %q, want %q", got["stdlib"], version)
	}
	if v, ok := got["example.test/gobin"]; !ok || v != "" {
		t.Errorf("main module %q %v, want it without a version", v, ok)
	}
}
