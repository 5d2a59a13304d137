package sbom_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// syft is another scanner: it writes bills that we read, and reads those that we
// write.
type syft struct {
	t    *testing.T
	path string
}

func (s syft) run(args ...string) []byte {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), s.path, append([]string{"-q"}, args...)...)
	cmd.Env = append(os.Environ(), "SYFT_CHECK_FOR_APP_UPDATE=false", "HOME="+s.t.TempDir())
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("syft %v: %v\n%s", args, err, said.String())
	}
	return out
}

// packages lists what syft itself says of a bill or an image, through its own
// format.
func packages(t *testing.T, syftJSON []byte) []string {
	t.Helper()
	var doc struct {
		Artifacts []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(syftJSON, &doc); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range doc.Artifacts {
		if u, err := gatehouse.ParsePURL(a.PURL); err == nil && u.Version != "" {
			p := u.Package()
			out = append(out, p.Type+" "+p.Name+" "+p.Version+" "+p.Arch)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func listed(inv gatehouse.Inventory) []string {
	var out []string
	for _, p := range inv.Packages {
		out = append(out, p.Type+" "+p.Name+" "+p.Version+" "+p.Arch)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestSyftWritesWeRead: of real images, in each of its formats.
func TestSyftWritesWeRead(t *testing.T) {
	s := syft{t, tool.Need(t, "syft")}
	shared := os.Getenv("GATEHOUSE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	for name, distro := range map[string]gatehouse.Distro{
		"debian-bookworm": {ID: "debian", VersionID: "12"}, "alma8": {ID: "almalinux", VersionID: "8"}, "nodeapp": {ID: "alpine", VersionID: "3.10"},
	} {
		image := filepath.Join(shared, "data", "images", name+".tar")
		if _, err := os.Stat(image); err != nil {
			t.Skipf("reference images are not here: %v", err)
		}
		formats := []string{"syft-json", "cyclonedx-json", "cyclonedx-xml", "spdx-json", "spdx-tag-value"}
		dir, args := t.TempDir(), []string{"oci-archive:" + image}
		for _, format := range formats {
			args = append(args, "-o", format+"="+filepath.Join(dir, format))
		}
		s.run(args...)
		var want []string
		sources := map[string]string{} // of the first format
		for _, format := range formats {
			data, err := os.ReadFile(filepath.Join(dir, format))
			if err != nil {
				t.Fatal(err)
			}
			if format == "syft-json" {
				want = packages(t, data)
				continue
			}
			inv, meta, err := sbom.Read(context.Background(), bytes.NewReader(data), sbom.Limits{})
			if err != nil {
				t.Errorf("%s, %s: %v", name, format, err)
				continue
			}
			if diff := cmp.Diff(want, listed(inv)); diff != "" {
				t.Errorf("%s, %s: packages (-syft +ours):\n%s", name, format, diff)
			}
			if inv.Distro.ID != distro.ID || !strings.HasPrefix(inv.Distro.VersionID, distro.VersionID) {
				t.Errorf("%s, %s: %+v", name, format, inv.Distro)
			}
			if !slices.ContainsFunc(meta.Tools, func(s string) bool { return strings.Contains(s, "syft") }) {
				t.Errorf("%s, %s: %+v", name, format, meta)
			}
			for _, p := range inv.Packages {
				key := p.Type + " " + p.Name + " " + p.Version
				if have, known := sources[key]; known && have != p.SourceName() {
					t.Errorf("%s, %s: %s comes from %s, and from %s in another format", name, format, key, p.SourceName(), have)
				}
				sources[key] = p.SourceName()
			}
		}
		if name == "debian-bookworm" && len(want) < 50 || len(sources) != len(want) && name != "nodeapp" {
			t.Errorf("%s: %d packages, %d sources", name, len(want), len(sources))
		}
	}
}

// TestWeWriteSyftReads: syft finds in our documents the packages that we wrote.
func TestWeWriteSyftReads(t *testing.T) {
	s := syft{t, tool.Need(t, "syft")}
	inv := inventory()
	for format, file := range map[sbom.Format]string{sbom.CycloneDX: "x.cdx.json", sbom.SPDX: "x.spdx.json"} {
		path := filepath.Join(t.TempDir(), file)
		if err := os.WriteFile(path, write(t, format, inv, options()), 0o600); err != nil {
			t.Fatal(err)
		}
		got := packages(t, s.run("convert", path, "-o", "syft-json"))
		for _, want := range listed(inv) {
			if !slices.Contains(got, want) {
				t.Errorf("%s: %s is missing in %q", format, want, got)
			}
		}
	}
}
