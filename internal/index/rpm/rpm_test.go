package rpm_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	oracle "github.com/knqyf263/go-rpmdb/pkg"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/rpm"
)

// TestDatabases reads real databases of CentOS 5 to 8, Fedora, UBI on s390x
// (big endian), SUSE and CBL-Mariner and compares with go-rpmdb. They are the
// test data of that module, in the module cache.
func TestDatabases(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/knqyf263/go-rpmdb").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "pkg", "testdata", "*", "*"))
	if err != nil || len(files) < 10 {
		t.Skipf("go-rpmdb's test data is not here: %d files", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			want, err := listOracle(t, file)
			if err != nil {
				t.Fatal(err)
			}
			if len(want) == 0 {
				t.Fatal("go-rpmdb found no packages")
			}
			got := parseFile(t, file)
			if d := gocmp.Diff(want, got); d != "" {
				t.Errorf("-go-rpmdb +ours:\n%s", d)
			}
		})
	}
}

func parseFile(t *testing.T, file string) []gatehouse.Package {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	packages, err := rpm.Parse(f, info.Size(), 100_000, nil)
	if err != nil {
		t.Fatal(err)
	}
	sortPackages(packages)
	return packages
}

func sortPackages(p []gatehouse.Package) {
	slices.SortFunc(p, func(a, b gatehouse.Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch))
	})
}

// listOracle prints go-rpmdb's view in our words, by rules of its own.
func listOracle(t *testing.T, file string) ([]gatehouse.Package, error) {
	t.Helper()
	db, err := oracle.Open(file)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	list, err := db.ListPackages()
	if err != nil {
		return nil, err
	}
	var packages []gatehouse.Package
	for _, p := range list {
		if p.Name == "gpg-pubkey" {
			continue
		}
		evr := func(v, r string) string {
			if p.Epoch != nil {
				return fmt.Sprintf("%d:%s-%s", *p.Epoch, v, r)
			}
			return v + "-" + r
		}
		g := gatehouse.Package{Type: "rpm", Name: p.Name, Version: evr(p.Version, p.Release), Arch: p.Arch, Vendor: p.Vendor, Modularity: p.Modularitylabel}
		if p.License != "" {
			g.Licenses = []string{p.License}
		}
		if parts := strings.Split(strings.TrimSuffix(p.SourceRpm, ".src.rpm"), "-"); len(parts) >= 3 {
			n := len(parts)
			if name := strings.Join(parts[:n-2], "-"); name != p.Name {
				g.Source = name
			}
			if v := evr(parts[n-2], parts[n-1]); v != g.Version {
				g.SourceVersion = v
			}
		}
		packages = append(packages, g)
	}
	sortPackages(packages)
	return packages, nil
}
