package match_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// TestContentSets compares where an image is looked up with the products that
// Red Hat's own table (repository-to-cpe.json) and its guidance on unrepaired
// flaws give for its repositories.
func TestContentSets(t *testing.T) {
	for _, c := range []struct {
		set, release string
		cpes         []string // that are looked up
		not          []string // that are not
	}{
		{"rhel-9-for-x86_64-baseos-eus-rpms__9_DOT_2", "9.4", []string{"cpe:/o:redhat:rhel_eus:9.2::baseos", "cpe:/a:redhat:enterprise_linux:9::appstream"}, []string{"cpe:/o:redhat:rhel_eus:9.4::baseos"}},
		{"rhel-9-for-aarch64-appstream-eus-rpms__9_DOT_2__aarch64", "9.2", []string{"cpe:/a:redhat:rhel_eus:9.2::appstream"}, []string{"cpe:/a:redhat:rhel_e4s:9.2::appstream"}},
		{"rhel-8-for-x86_64-baseos-eus-rpms", "8.6", []string{"cpe:/o:redhat:rhel_eus:8.6::baseos"}, []string{"cpe:/o:redhat:rhel_eus:8.4::baseos"}},
		{"rhel-8-for-x86_64-baseos-eus-rpms", "8", nil, []string{"cpe:/o:redhat:rhel_eus:8.::baseos", "cpe:/o:redhat:rhel_eus:8::baseos"}},
		{"rhel-8-for-x86_64-nfv-tus-rpms__8_DOT_4", "8.4", []string{"cpe:/a:redhat:rhel_tus:8.4::nfv", "cpe:/o:redhat:rhel_tus:8.4::baseos"}, nil},
		{"rhel-10-for-x86_64-baseos-eus-rpms__10_DOT_2", "10.2", []string{"cpe:/o:redhat:enterprise_linux_eus:10.2"}, []string{"cpe:/o:redhat:enterprise_linux_eus:10.0"}},
		{"codeready-builder-for-rhel-9-x86_64-eus-rpms__9_DOT_2", "9.2", []string{"cpe:/a:redhat:rhel_eus:9.2::crb"}, nil},
		{"fast-datapath-for-rhel-9-x86_64-rpms", "9.4", []string{"cpe:/o:redhat:enterprise_linux:9::fastdatapath"}, nil},
		{"rhel-9-for-x86_64-sap-solutions-rpms", "9.4", []string{"cpe:/a:redhat:enterprise_linux:9::sap_hana"}, nil},
		{"rhocp-4.16-for-rhel-9-x86_64-rpms", "9.2", []string{"cpe:/a:redhat:openshift:4.16::el9", "cpe:/a:redhat:openshift:4"}, []string{"cpe:/a:redhat:openshift:4.15::el9", "cpe:/a:redhat:openshift:4.16::el8"}},
		{"rhel-7-server-ose-3.11-rpms", "7.9", []string{"cpe:/a:redhat:openshift:3.11::el7"}, nil},
		{"rhel-server-rhscl-7-rpms", "7.9", []string{"cpe:/a:redhat:rhel_software_collections:3::el7"}, nil},
		{"ansible-automation-platform-2.4-for-rhel-9-x86_64-rpms", "9.4", []string{"cpe:/a:redhat:ansible_automation_platform:2.4::el9"}, []string{"cpe:/a:redhat:ansible_engine:2.4::el9"}},
		{"openstack-17.1-for-rhel-9-x86_64-rpms", "9.2", []string{"cpe:/a:redhat:openstack:17.1::el9"}, nil},
		{"rhocp-4.16-for-rhel-9-x86_64-debug-rpms", "9.2", nil, []string{"cpe:/a:redhat:openshift:4.16::el9"}},
		{"rhocp-4.16-for-rhel-9-x86_64-source-rpms", "9.2", nil, []string{"cpe:/a:redhat:openshift:4.16::el9"}},
		{"rhel-8-for-x86_64-baseos-eus-rpms__8_DOT_6", "9.2", nil, []string{"cpe:/o:redhat:rhel_eus:8.6::baseos"}}, // of another release
	} {
		d := gatehouse.Distro{ID: "rhel", VersionID: c.release, ContentSets: []string{c.set}}
		keys := match.Keys(gatehouse.Package{Type: "rpm", Name: "a", Version: "1-1.el9"}, d)
		for i, list := range [][]string{c.cpes, c.not} {
			for _, cpe := range list {
				if slices.Contains(keys, match.Key{Space: gatehouse.RedHatSpace(cpe), Name: "a"}) == (i == 1) {
					t.Errorf("%s on %s: %s is looked up: %v", c.set, c.release, cpe, i == 1)
				}
			}
		}
		seen := map[match.Key]bool{}
		for _, k := range keys {
			if seen[k] {
				t.Errorf("%s: %v is looked up twice", c.set, k)
			}
			seen[k] = true
		}
	}
}

// TestContentSetsAreBounded: an image may name as many repositories as it likes.
func TestContentSetsAreBounded(t *testing.T) {
	d := gatehouse.Distro{ID: "rhel", VersionID: "9.4"}
	p := gatehouse.Package{Type: "rpm", Name: "a", Version: "1-1.el9"}
	plain := len(match.Keys(p, d))
	for i := range 1000 {
		d.ContentSets = append(d.ContentSets, fmt.Sprintf("rhocp-4.%d-for-rhel-9-x86_64-rpms", i))
	}
	if n := len(match.Keys(p, d)); n != plain+match.ContentSpacesMax {
		t.Errorf("%d keys instead of %d", n, plain)
	}
}

// TestUnknownContentSets: a repository that leads nowhere is told, unless there
// is nothing to look up.
func TestUnknownContentSets(t *testing.T) {
	for name, known := range map[string]bool{
		"ubi-9-baseos-rpms": true, "ubi-9-for-x86_64-appstream-rpms": true, "rhel-9-for-x86_64-baseos-rpms": true, "rhel-8-for-x86_64-nfv-tus-rpms__8_DOT_4": true,
		"rhel-7-server-rpms": true, "rhel-7-server-extras-rpms": true, "rhocp-4.16-for-rhel-9-x86_64-rpms": true,
		"rhocp-4.16-for-rhel-9-x86_64-source-rpms": true, "nobody-1.0-for-rhel-9-x86_64-debug-rpms": true, "releases": true,
		"nobody-1.0-for-rhel-9-x86_64-rpms": false, "rhel-9-for-x86_64-nobody-rpms": false, "something-rpms": false,
	} {
		told := match.Unmatched(gatehouse.Distro{ID: "rhel", VersionID: "9.4", ContentSets: []string{name}}, nil)
		if (len(told) == 0) != known {
			t.Errorf("%s: %q", name, told)
		}
	}
}

// FuzzContentSets: whatever an image names, it is looked up in its release, and
// nowhere twice.
func FuzzContentSets(f *testing.F) {
	f.Add("rhel-9-for-x86_64-baseos-eus-rpms__9_DOT_2", "9.4", "1-1.el9_2")
	f.Add("rhel-10-for-x86_64-baseos-eus-rpms__10_DOT_2__x86_64", "10.2", "1-1.el10_2")
	f.Add("codeready-builder-for-rhel-9-x86_64-aus-rpms", "9", "1-1")
	f.Add("rhocp-4.16-for-rhel-9-x86_64-rpms", "9.2", "1-1.el9")
	f.Add("rhel-7-server-ose-3.11-rpms", "7.9", "1-1.el7_9")
	f.Fuzz(func(t *testing.T, set, release, version string) {
		p := gatehouse.Package{Type: "rpm", Name: "a", Version: version}
		plain := match.Keys(p, gatehouse.Distro{ID: "rhel", VersionID: release})
		keys := match.Keys(p, gatehouse.Distro{ID: "rhel", VersionID: release, ContentSets: []string{set, set}})
		seen := map[match.Key]bool{}
		for _, k := range keys {
			if seen[k] {
				t.Errorf("%v is there twice", k)
			}
			seen[k] = true
		}
		for _, k := range plain {
			if !seen[k] {
				t.Errorf("%v is no longer looked up", k)
			}
		}
	})
}
