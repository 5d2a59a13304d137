package match_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/match/version"
	"github.com/gatehouse-dev/gatehouse/test/text"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// TestCases runs testdata/*.txtar. Each holds
//
//	-- inventory.json --   {"distro": …, "packages": […]}
//	-- advisories.json --  an array of OSV records
//	-- records.json --     an array of records as feeds of other formats give
//	                       them, if there are any
//	-- want --             one line per finding, then uncovered and unmatched
//
// through the real reader of OSV and a real advisory file.
func TestCases(t *testing.T) {
	text.Run(t, "testdata/*.txtar", 1, func(t *testing.T, a *txtar.Archive) string {
		var inv gatehouse.Inventory
		decodePart(t, a, "inventory.json", &inv)
		var records []gatehouse.Advisory
		if text.Part(a, "records.json") != nil {
			decodePart(t, a, "records.json", &records)
		}
		return report(t, inv, load(t, text.Part(a, "advisories.json").Data, records...))
	})
}

func decodePart(t *testing.T, a *txtar.Archive, name string, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text.Part(a, name).Data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
}

// load makes an advisory file of OSV records, and of others as the feed that
// they name.
func load(t testing.TB, records []byte, more ...gatehouse.Advisory) *advisory.File {
	t.Helper()
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "a.db")
	pubs := []gatehouse.Publication{{
		Feed: "osv", Format: gatehouse.FormatOSV, Records: osv.Read(ctx, "advisories.json", bytes.NewReader(records), int64(len(records)), osv.DefaultLimits()),
	}}
	for _, a := range more {
		pubs = append(pubs, gatehouse.Publication{Feed: a.Feed, Records: func(yield func(gatehouse.Advisory, error) bool) { yield(a, nil) }})
	}
	if _, err := advisory.BuildAll(ctx, path, "", advisory.Info{BuiltAt: time.Unix(0, 0)}, pubs); err != nil {
		t.Fatal(err)
	}
	f, err := advisory.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func report(t *testing.T, inv gatehouse.Inventory, adv match.Advisories) string {
	t.Helper()
	r, err := match.Findings(context.Background(), inv.Distro, inv.Packages, adv)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range r.Findings {
		fixed, source := f.FixedVersion, f.SeveritySource
		if fixed == "" {
			fixed = "-"
		}
		if source == "" {
			source = "-"
		}
		kind := ""
		if f.Kind != gatehouse.KindVulnerability {
			kind = " " + string(f.Kind)
		}
		for _, c := range f.CVSS {
			kind += fmt.Sprintf(" %s=%s/%.1f", c.Source, c.Version, c.Score)
		}
		fmt.Fprintf(&b, "%s %s %s %s %s (%s)%s %v %s\n", f.ID, f.Package.Name, f.Package.Version, fixed, f.Severity, source, kind, f.Aliases, f.Status)
		if f.Title != "" {
			fmt.Fprintf(&b, "\t%s\n", f.Title)
		}
	}
	for _, s := range r.Uncovered {
		fmt.Fprintf(&b, "uncovered: %s\n", s)
	}
	for _, s := range r.Unmatched {
		fmt.Fprintf(&b, "unmatched: %s\n", s)
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

// TestPackage checks that one package, matched alone as the server does, gets
// what it gets inside an image.
func TestPackage(t *testing.T) {
	adv := load(t, []byte(`[{"id":"DSA-1-1","modified":"2024-01-01T00:00:00Z","upstream":["CVE-2024-0001","CVE-2024-0002"],
		"affected":[{"package":{"ecosystem":"Debian:12","name":"src"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"2-1"}]}]}]}]`))
	distro := gatehouse.Distro{ID: "debian", VersionID: "12"}
	p := gatehouse.Package{Type: "deb", Name: "bin", Version: "9", Source: "src", SourceVersion: "1-1", Path: "var/lib/dpkg/status"}
	whole, err := match.Findings(context.Background(), distro, []gatehouse.Package{p}, adv)
	if err != nil {
		t.Fatal(err)
	}
	alone, err := match.Package(context.Background(), p, match.Keys(p, distro), adv)
	if err != nil {
		t.Fatal(err)
	}
	if len(alone) != 2 {
		t.Errorf("%d findings, want one for each CVE", len(alone))
	}
	if diff := cmp.Diff(whole.Findings, alone); diff != "" {
		t.Errorf("-in the image +alone:\n%s", diff)
	}
}

// TestSameAnswer shuffles the input: neither order nor repetition may show.
func TestSameAnswer(t *testing.T) {
	adv := realAdvisories(t)
	inv := image(t, "nodeapp")
	want, err := match.Findings(context.Background(), inv.Distro, inv.Packages, adv)
	if err != nil {
		t.Fatal(err)
	}
	turned := make([]gatehouse.Package, 0, len(inv.Packages))
	for i := range inv.Packages {
		turned = append(turned, inv.Packages[len(inv.Packages)-1-i])
	}
	for range 3 {
		got, err := match.Findings(context.Background(), inv.Distro, turned, adv)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-first +turned round:\n%s", diff)
		}
	}
}

// TestEverySpaceHasAnOrder guards the tables against each other.
func TestEverySpaceHasAnOrder(t *testing.T) {
	all := match.Spaces()
	if len(all) < 30 {
		t.Errorf("only %d ecosystems: %q", len(all), all)
	}
	for _, space := range all {
		if _, err := version.For(space); err != nil {
			t.Error(err)
		}
	}
}

// TestMatcherForgets matches more names than a Matcher may remember.
func TestMatcherForgets(t *testing.T) {
	m := match.NewMatcher(load(t, []byte(`[{"id":"CVE-2024-0001","affected":[{"package":{"ecosystem":"npm","name":"a"},"versions":["1.0.0"]}]}]`)))
	for i := range match.Remembered + 10 {
		p := gatehouse.Package{Type: "npm", Name: fmt.Sprint("p", i), Version: "1.0.0"}
		if i%1000 == 0 {
			p.Name = "a"
		}
		found, err := m.Package(context.Background(), p, match.Keys(p, gatehouse.Distro{}))
		if err != nil || len(found) != map[bool]int{true: 1}[p.Name == "a"] {
			t.Fatalf("%s: %d findings, %v", p.Name, len(found), err)
		}
		if m.Keeps() > match.Remembered {
			t.Fatalf("%d look-ups are kept, the bound is %d", m.Keeps(), match.Remembered)
		}
	}
}

// failing is a store that is out of order.
type failing struct{ match.Advisories }

func (failing) For(context.Context, string, string) ([]gatehouse.Advisory, error) {
	return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the disk is gone")
}

// TestStoreError makes sure that an advisory that could not be read is no "no
// finding".
func TestStoreError(t *testing.T) {
	adv := failing{load(t, []byte(`[{"id":"CVE-2024-0001","affected":[{"package":{"ecosystem":"npm","name":"a"},"versions":["1.0.0"]}]}]`))}
	_, err := match.Findings(context.Background(), gatehouse.Distro{}, []gatehouse.Package{{Type: "npm", Name: "a", Version: "1.0.0"}}, adv)
	if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("error %v, want the store's", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = match.Findings(ctx, gatehouse.Distro{}, []gatehouse.Package{{Type: "npm", Name: "a", Version: "1.0.0"}}, adv.Advisories)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after the end of the context", err)
	}
}

func TestSpace(t *testing.T) {
	for _, c := range []struct {
		d    gatehouse.Distro
		want string
	}{
		{gatehouse.Distro{ID: "debian", VersionID: "12"}, "Debian:12"},
		{gatehouse.Distro{ID: "debian", VersionID: "12.5"}, "Debian:12"},
		{gatehouse.Distro{ID: "debian", Codename: "forky"}, "Debian:14"},
		{gatehouse.Distro{ID: "debian", Codename: "sid"}, ""},
		{gatehouse.Distro{ID: "ubuntu", VersionID: "22.04"}, "Ubuntu:22.04:LTS"},
		{gatehouse.Distro{ID: "ubuntu", VersionID: "23.10"}, "Ubuntu:23.10"},
		{gatehouse.Distro{ID: "ubuntu", VersionID: "23.04"}, "Ubuntu:23.04"},
		{gatehouse.Distro{ID: "alpine", VersionID: "3.10.2"}, "Alpine:v3.10"},
		{gatehouse.Distro{ID: "alpine", VersionID: "3.21_alpha20240807"}, "Alpine:edge"},
		{gatehouse.Distro{ID: "alpine", VersionID: "3.21.0", Name: "Alpine Linux edge"}, "Alpine:edge"},
		{gatehouse.Distro{ID: "alpine"}, ""},
		{gatehouse.Distro{ID: "almalinux", VersionID: "8.10"}, "AlmaLinux:8"},
		{gatehouse.Distro{ID: "rocky", VersionID: "9.3"}, "Rocky Linux:9"},
		{gatehouse.Distro{ID: "rhel", VersionID: "9.4"}, "Red Hat:enterprise_linux:9::baseos"},
		{gatehouse.Distro{ID: "wolfi", VersionID: "20230201"}, "Wolfi"},
		{gatehouse.Distro{ID: "chainguard", VersionID: "20230214"}, "Chainguard"},
		{gatehouse.Distro{ID: "sles", VersionID: "15.5"}, "SUSE:Linux Enterprise Server 15 SP5"},
		{gatehouse.Distro{ID: "opensuse-leap", VersionID: "15.6"}, "openSUSE:Leap 15.6"},
		{gatehouse.Distro{ID: "opensuse-tumbleweed", VersionID: "20240101"}, "openSUSE:Tumbleweed"},
		{gatehouse.Distro{ID: "azurelinux", VersionID: "3.0"}, "Azure Linux:3"},
		{gatehouse.Distro{ID: "photon", VersionID: "5.0"}, "Photon OS:5.0"},
		{gatehouse.Distro{ID: "openEuler", VersionID: "22.03", Name: "openEuler 22.03 (LTS-SP3)"}, "openEuler:22.03-LTS-SP3"},
		{gatehouse.Distro{ID: "sles", VersionID: "16.0"}, "SUSE:Linux Enterprise Server 16.0"},
		{gatehouse.Distro{ID: "sles", VersionID: "12.5"}, "SUSE:Linux Enterprise Server 12 SP5"},
		{gatehouse.Distro{ID: "sle-micro-rancher", VersionID: "5.4"}, "SUSE:Linux Enterprise Micro 5.4"},
		{gatehouse.Distro{ID: "opensuse", VersionID: "42.3"}, "openSUSE:Leap 42.3"},
		{gatehouse.Distro{ID: "opensuse", VersionID: "20180412"}, "openSUSE:Tumbleweed"},
		{gatehouse.Distro{ID: "sl-micro", VersionID: "6.0"}, "SUSE:Linux Micro 6.0"},
		{gatehouse.Distro{ID: "sle-micro", VersionID: "5.5"}, "SUSE:Linux Enterprise Micro 5.5"},
		{gatehouse.Distro{ID: "centos", VersionID: "7"}, "Red Hat:enterprise_linux:7::server"},
		{gatehouse.Distro{ID: "centos", VersionID: "8", Name: "CentOS Stream 8"}, "Red Hat:enterprise_linux:8::baseos"},
		{gatehouse.Distro{ID: "rhel", VersionID: "beta"}, ""},
		{gatehouse.Distro{ID: "ol", VersionID: "8.9"}, "Oracle Linux:8"},
		{gatehouse.Distro{ID: "amzn", VersionID: "2018.03"}, "Amazon Linux:1"},
		{gatehouse.Distro{ID: "amzn", VersionID: "2023"}, "Amazon Linux:2023"},
		{gatehouse.Distro{ID: "mariner", VersionID: "2.0"}, "Azure Linux:2"},
		{gatehouse.Distro{ID: "raspbian", VersionID: "12", IDLike: []string{"debian"}}, ""},
		{gatehouse.Distro{}, ""},
	} {
		if got := match.Space(c.d); got != c.want {
			t.Errorf("Space(%+v) = %q, want %q", c.d, got, c.want)
		}
	}
}

// TestScope: what was found for a package in one image is true of another one of
// the same scope, so that two whose packages are looked up in different places,
// or that take different packages for their own, have two.
func TestScope(t *testing.T) {
	rhel := func(version string, sets ...string) gatehouse.Distro {
		return gatehouse.Distro{ID: "rhel", VersionID: version, ContentSets: sets}
	}
	for _, c := range []struct {
		a, b gatehouse.Distro
		same bool
	}{
		{gatehouse.Distro{ID: "debian", VersionID: "12.5"}, gatehouse.Distro{ID: "debian", VersionID: "12.6"}, true},
		{rhel("9.2"), rhel("9.4"), true},
		{rhel("10.0"), rhel("10.1"), false}, // each minor release is a product of its own
		{rhel("9.2"), rhel("9.2", "rhocp-4.16-for-rhel-9-x86_64-rpms"), false},
		{rhel("9.2"), rhel("9.2", "rhel-9-for-x86_64-baseos-rpms", "ubi-9-appstream-rpms"), true}, // says nothing new
		{rhel("9.2", "rhocp-4.15-for-rhel-9-x86_64-rpms"), rhel("9.2", "rhocp-4.16-for-rhel-9-x86_64-rpms"), false},
		{rhel("9.4"), gatehouse.Distro{ID: "centos", VersionID: "9"}, false}, // takes CentOS' packages
		{gatehouse.Distro{ID: "sles", VersionID: "15.5"}, gatehouse.Distro{ID: "sles_sap", VersionID: "15.5"}, false},
	} {
		a, b := match.Scope(c.a), match.Scope(c.b)
		if (a == b) != c.same {
			t.Errorf("%+v has scope %q, %+v has %q", c.a, a, c.b, b)
		}
		if match.SpaceOfScope(a) != match.Space(c.a) {
			t.Errorf("scope %q does not tell the space %q", a, match.Space(c.a))
		}
	}
	if got := match.Scope(gatehouse.Distro{ID: "debian", VersionID: "12"}); got != "Debian:12" {
		t.Errorf("Debian's scope is %q", got)
	}
}

func keys(name string, products ...string) (out []match.Key) {
	for _, p := range products {
		out = append(out, match.Key{Space: "Red Hat:" + p, Name: name})
	}
	return out
}

// rhelRepositories are the release's own, and the release itself.
func rhelRepositories(major string) (out []string) {
	for _, r := range []string{"::baseos", "::appstream", "::crb", "::highavailability", "::resilientstorage", "::nfv", "::realtime", "::supplementary", ""} {
		out = append(out, "enterprise_linux:"+major+r)
	}
	return out
}

// TestFeedsAndInventoriesMeet compares the names that feeds in other words than
// OSV's use with those that images are looked up by.
func TestFeedsAndInventoriesMeet(t *testing.T) {
	for _, c := range []struct {
		family, release string
		d               gatehouse.Distro
	}{
		{"debian", "12", gatehouse.Distro{ID: "debian", VersionID: "12"}},
		{"ubuntu", "22.04", gatehouse.Distro{ID: "ubuntu", VersionID: "22.04"}},
		{"ubuntu", "24.10", gatehouse.Distro{ID: "ubuntu", VersionID: "24.10"}},
		{"alpine", "3.20", gatehouse.Distro{ID: "alpine", VersionID: "3.20.3"}},
		{"alpine", "edge", gatehouse.Distro{ID: "alpine", VersionID: "3.21_alpha20240807"}},
		{"wolfi", "", gatehouse.Distro{ID: "wolfi", VersionID: "20230201"}},
		{"chainguard", "", gatehouse.Distro{ID: "chainguard", VersionID: "20230214"}},
		{"minimos", "", gatehouse.Distro{ID: "minimos", VersionID: "20250101"}},
		{"alma", "9", gatehouse.Distro{ID: "almalinux", VersionID: "9.4"}},
		{"rocky", "8", gatehouse.Distro{ID: "rocky", VersionID: "8.9"}},
		{"Oracle Linux", "8", gatehouse.Distro{ID: "ol", VersionID: "8.9"}},
		{"amazon linux", "1", gatehouse.Distro{ID: "amzn", VersionID: "2018.03"}},
		{"amazon linux", "2023", gatehouse.Distro{ID: "amzn", VersionID: "2023"}},
		{"Photon OS", "3.0", gatehouse.Distro{ID: "photon", VersionID: "3.0"}},
		{"Azure Linux", "3.0", gatehouse.Distro{ID: "azurelinux", VersionID: "3.0"}},
		{"CBL-Mariner", "2.0", gatehouse.Distro{ID: "mariner", VersionID: "2.0"}},
		{"SUSE Linux Enterprise", "15.5", gatehouse.Distro{ID: "sles", VersionID: "15.5"}},
		{"SUSE Linux Enterprise", "15", gatehouse.Distro{ID: "sles", VersionID: "15"}},
		{"SUSE Linux Enterprise Micro", "5.3", gatehouse.Distro{ID: "sle-micro", VersionID: "5.3"}},
		{"SUSE Linux Enterprise Micro", "6.1", gatehouse.Distro{ID: "sl-micro", VersionID: "6.1"}},
		{"SUSE Linux Enterprise", "16.0", gatehouse.Distro{ID: "sles", VersionID: "16.0"}},
		{"openSUSE Leap", "15.6", gatehouse.Distro{ID: "opensuse-leap", VersionID: "15.6"}},
		{"openSUSE Tumbleweed", "", gatehouse.Distro{ID: "opensuse-tumbleweed", VersionID: "20240101"}},
	} {
		if got, want := gatehouse.SpaceOf(c.family, c.release), match.Space(c.d); got != want || got == "" {
			t.Errorf("feeds write %s %s as %q, images of %s %s are looked up in %q", c.family, c.release, got, c.d.ID, c.d.VersionID, want)
		}
	}
	for _, cpe := range []string{"cpe:/o:redhat:enterprise_linux:9::baseos", "cpe:/a:redhat:enterprise_linux:9::appstream", "cpe:/o:redhat:enterprise_linux:9", "cpe:/o:redhat:rhel_eus:9.2::baseos"} {
		all := match.Keys(gatehouse.Package{Type: "rpm", Name: "a", Version: "1-1.el9_2"}, gatehouse.Distro{ID: "rhel", VersionID: "9.2"})
		if !slices.Contains(all, match.Key{Space: gatehouse.RedHatSpace(cpe), Name: "a"}) {
			t.Errorf("nobody looks up what %s is about", cpe)
		}
	}
}

func TestKeys(t *testing.T) {
	alma, rocky := gatehouse.Distro{ID: "almalinux", VersionID: "8.9"}, gatehouse.Distro{ID: "rocky", VersionID: "9"}
	debian, rhel := gatehouse.Distro{ID: "debian", VersionID: "12"}, gatehouse.Distro{ID: "rhel", VersionID: "9.4"}
	lib := gatehouse.Package{Type: "rpm", Name: "openssl-libs", Version: "1:3-1", Source: "openssl"}
	for _, c := range []struct {
		p    gatehouse.Package
		d    gatehouse.Distro
		want []match.Key
	}{
		{gatehouse.Package{Type: "deb", Name: "libssl3", Source: "openssl"}, debian, []match.Key{{"Debian:12", "openssl"}}},
		{gatehouse.Package{Type: "deb", Name: "bash"}, debian, []match.Key{{"Debian:12", "bash"}}},
		{lib, alma, []match.Key{{"AlmaLinux:8", "openssl-libs"}}},
		{lib, rocky, []match.Key{{"Rocky Linux:9", "openssl-libs"}, {"Rocky Linux:9", "openssl"}}},
		{gatehouse.Package{Type: "rpm", Name: "bash", Version: "5.1.8-9.el9"}, rhel, keys("bash", rhelRepositories("9")...)},
		{gatehouse.Package{Type: "rpm", Name: "bash", Version: "5.1.8-9.el9_2.1"}, rhel, keys("bash", append(rhelRepositories("9"),
			"rhel_eus:9.2::baseos", "rhel_eus:9.2::appstream", "rhel_e4s:9.2::baseos", "rhel_e4s:9.2::appstream",
			"rhel_aus:9.2::baseos", "rhel_aus:9.2::appstream", "rhel_tus:9.2::baseos", "rhel_tus:9.2::appstream")...)},
		{gatehouse.Package{Type: "rpm", Name: "bash", Version: "5.2.26-6.el10"}, gatehouse.Distro{ID: "rhel", VersionID: "10.1"}, keys("bash",
			append(rhelRepositories("10"), "enterprise_linux:10.1", "enterprise_linux:10.0")...)},
		{gatehouse.Package{Type: "deb", Name: "linux-libc-dev", Source: "linux"}, debian, nil},
		{gatehouse.Package{Type: "cocoapods", Name: "A"}, debian, nil},
		{lib, debian, nil},
		{lib, gatehouse.Distro{}, nil},
		{gatehouse.Package{Type: "pypi", Name: "Zope.Interface"}, debian, []match.Key{{"PyPI", "zope-interface"}}},
		{gatehouse.Package{Type: "npm", Name: "@a/b"}, gatehouse.Distro{}, []match.Key{{"npm", "@a/b"}}},
		{gatehouse.Package{Type: "maven", Name: "g:a"}, debian, []match.Key{{"Maven", "g:a"}}},
		{gatehouse.Package{Type: "golang", Name: "stdlib"}, debian, []match.Key{{"Go", "stdlib"}}},
		{gatehouse.Package{Type: "nuget", Name: "A.B"}, debian, []match.Key{{"NuGet", "a.b"}}},
		{gatehouse.Package{Type: "generic", Name: "x"}, debian, nil},
	} {
		if diff := cmp.Diff(c.want, match.Keys(c.p, c.d)); diff != "" {
			t.Errorf("Keys(%s %s on %s) -want +got:\n%s", c.p.Type, c.p.Name, c.d.ID, diff)
		}
	}
}
