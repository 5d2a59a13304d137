package update

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// lines are feeds as "NAME SOURCE".
func lines(t *testing.T, entries, repos []string) []string {
	t.Helper()
	specs, err := Parse(entries, repos)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range Feeds(specs, noon) {
		out = append(out, f.Name+" "+f.Source())
	}
	return out
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		entries, repos, want []string
	}{
		{[]string{"trivy-db"}, nil, []string{"trivy-db mirror.gcr.io/aquasec/trivy-db:2, ghcr.io/aquasecurity/trivy-db:2"}},
		{[]string{"trivy-db"}, []string{"registry.example/mirror/trivy-db", "a.example/b:7"}, []string{"trivy-db registry.example/mirror/trivy-db:2, a.example/b:7"}},
		{[]string{"trivy-db=oci://localhost:5000/t"}, nil, []string{"trivy-db localhost:5000/t:2"}},
		{[]string{"trivy-db=file:///srv/trivy.tar.gz"}, nil, []string{"trivy-db file:///srv/trivy.tar.gz"}},
		{[]string{"kev", "epss"}, nil, []string{"epss " + epssURL, "kev " + kevURL}},
		{[]string{"kev=https://mirror.example/kev.json?key=secret"}, nil, []string{"kev https://mirror.example/kev.json"}},
		{[]string{"osv/Rocky Linux"}, nil, []string{"osv/Rocky Linux " + osvBase + "/Rocky%20Linux/all.zip"}},
		{[]string{"osv/Debian=http://mirror.example/osv/"}, nil, []string{"osv/Debian http://mirror.example/osv/Debian/all.zip"}},
		{[]string{"osv/Debian=https://mirror.example/d.zip"}, nil, []string{"osv/Debian https://mirror.example/d.zip"}},
		{[]string{"gatehouse=registry.example/security/advisories"}, nil, []string{"gatehouse registry.example/security/advisories:latest"}},
		{[]string{"gatehouse=oci://localhost:5000/a:weekly"}, []string{"a.example/b:7"}, []string{"gatehouse localhost:5000/a:weekly"}},
		{[]string{" nvd/2024 "}, nil, []string{"nvd/2024 " + nvdBase + "/nvdcve-2.0-2024.json.gz"}},
	} {
		if got := lines(t, c.entries, c.repos); !slices.Equal(got, c.want) {
			t.Errorf("%q, %q:\n got %q\nwant %q", c.entries, c.repos, got, c.want)
		}
	}
}

func TestGroups(t *testing.T) {
	got := lines(t, []string{"osv", "osv/Debian=https://mirror.example/d.zip", "osv/GIT"}, nil)
	if len(got) != len(Ecosystems())+1 {
		t.Errorf("%d feeds, want those of the list and one more", len(got))
	}
	for _, want := range []string{"osv/npm " + osvBase + "/npm/all.zip", "osv/Debian https://mirror.example/d.zip", "osv/GIT " + osvBase + "/GIT/all.zip"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing", want)
		}
	}
	got = lines(t, []string{"nvd=https://mirror.example/nvd"}, nil)
	if len(got) != 2026-2002+1 || got[0] != "nvd/2002 https://mirror.example/nvd/nvdcve-2.0-2002.json.gz" {
		t.Errorf("years: %q", got)
	}
}

func TestMirrorDirectory(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"Debian", "Rocky Linux"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "all.zip"), []byte("zip"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := []string{"osv/Debian file://" + dir + "/Debian/all.zip", "osv/Rocky Linux file://" + dir + "/Rocky%20Linux/all.zip"}
	if got := lines(t, []string{"osv=file://" + dir}, nil); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	// Without the directory the feed itself fails, which is told like any failure.
	specs, err := Parse([]string{"osv=file://" + dir + "/none"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := newFetcher(t, nil)
	r := f.Fetch(t.Context(), Feeds(specs, noon), nil, nothing)
	if len(r) != 1 || r[0].Feed.Name != "osv" || gatehouse.CodeOf(r[0].Err) != gatehouse.CodeUnavailable || r[0].State.Failures != 1 {
		t.Errorf("a missing mirror: %+v", r)
	}
}

func TestParseRefuses(t *testing.T) {
	for entry, why := range map[string]string{
		"":                               "no such feed",
		"github":                         "no such feed",
		"OSV":                            "no such feed",
		"osv/":                           "nothing follows",
		"osv/..":                         "no ecosystem",
		"osv/a/b":                        "no ecosystem",
		"osv/%2e%2e":                     "no ecosystem",
		"kev/x":                          "no parts",
		"kev=":                           "mirror is https",
		"nvd/20":                         "no year",
		"nvd/abc":                        "no year",
		"kev=ftp://a.example/x":          "mirror is https",
		"kev=mirror.example/x":           "mirror is https",
		"kev=file://host/x":              "mirror is https",
		"kev=file:x":                     "no URL",
		"kev=https://u:p@a.example/x":    "credentials",
		"kev=https://a.example/x#y":      "fragment",
		"osv=https://a.example/x.zip":    "name of its ecosystem",
		"trivy-db=https://u:p@a.example": "credentials",
		"trivy-db=a b":                   "repository",
		"gatehouse":                      "no reference",
		"gatehouse=":                     "no reference",
		"gatehouse=a b":                  "repository",
		"gatehouse=https://a.example/b":  "no reference",
		"gatehouse/x=a.example/b":        "no parts",
	} {
		_, err := Parse([]string{entry}, nil)
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), why) || gatehouse.HintOf(err) == "" {
			t.Errorf("%q: %v, want an error with %q and a hint", entry, err, why)
		}
		if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: the error shows a password: %v", entry, err)
		}
	}
	if _, err := Parse([]string{"kev", "kev=https://a.example/x"}, nil); err == nil {
		t.Error("a feed that is named twice is taken")
	}
	if _, err := Parse([]string{"gatehouse=a.example/b", "kev"}, nil); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a feed beside a whole database: %v", err)
	}
	if _, err := Parse(make([]string, entriesMax+1), nil); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("too many feeds: %v", err)
	}
}
