package gatehouse_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

func TestSpaceOf(t *testing.T) {
	for _, c := range [][3]string{
		{"debian", "12", "Debian:12"},
		{"Debian", "11.5", "Debian:11"},
		{"ubuntu", "22.04", "Ubuntu:22.04:LTS"},
		{"ubuntu", "23.10", "Ubuntu:23.10"},
		{"ubuntu", "18.04-ESM", "Ubuntu:Pro:18.04:LTS"},
		{"ubuntu", "jammy", ""},
		{"alpine", "3.20", "Alpine:v3.20"},
		{"alpine", "v3.20.3", "Alpine:v3.20"},
		{"alpine", "edge", "Alpine:edge"},
		{"wolfi", "", "Wolfi"},
		{"chainguard", "", "Chainguard"},
		{"minimos", "", "MinimOS"},
		{"alma", "9", "AlmaLinux:9"},
		{"rocky", "9", "Rocky Linux:9"},
		{"Oracle Linux", "8", "Oracle Linux:8"},
		{"amazon linux", "1", "Amazon Linux:1"},
		{"amazon linux", "2018.03", "Amazon Linux:1"},
		{"amazon linux", "2", "Amazon Linux:2"},
		{"amazon linux", "2023", "Amazon Linux:2023"},
		{"Photon OS", "3.0", "Photon OS:3.0"},
		{"Azure Linux", "3.0", "Azure Linux:3"},
		{"CBL-Mariner", "2.0", "Azure Linux:2"},
		{"SUSE Linux Enterprise", "15.5", "SUSE:Linux Enterprise Server 15 SP5"},
		{"SUSE Linux Enterprise", "15", "SUSE:Linux Enterprise Server 15"},
		{"SUSE Linux Enterprise Micro", "5.3", "SUSE:Linux Enterprise Micro 5.3"},
		{"openSUSE Leap", "15.6", "openSUSE:Leap 15.6"},
		{"openSUSE Leap Micro", "5.5", "openSUSE:Leap Micro 5.5"},
		{"openSUSE", "Tumbleweed", "openSUSE:Tumbleweed"},
		{"openSUSE Tumbleweed", "", "openSUSE:Tumbleweed"},
		{"opensuse", "", ""},
		{"plan9", "4", ""},
		{"debian", "", ""},
	} {
		if got := gatehouse.SpaceOf(c[0], c[1]); got != c[2] {
			t.Errorf("SpaceOf(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

func TestLanguageSpace(t *testing.T) {
	for name, want := range map[string]string{"pip": "PyPI", "npm": "npm", "RubyGems": "RubyGems", "go": "Go", "golang": "Go", "erlang": "Hex", "k8s": ""} {
		if got := gatehouse.LanguageSpace(name); got != want {
			t.Errorf("LanguageSpace(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestRedHatSpace(t *testing.T) {
	for cpe, want := range map[string]string{
		"cpe:/o:redhat:enterprise_linux:9::baseos":    "Red Hat:enterprise_linux:9::baseos",
		"cpe:/a:redhat:enterprise_linux:9::appstream": "Red Hat:enterprise_linux:9::appstream",
		"cpe:/a:redhat:rhel_eus:9.2::appstream":       "Red Hat:rhel_eus:9.2::appstream",
		"cpe:/o:redhat:enterprise_linux:9":            "Red Hat:enterprise_linux:9",
		"cpe:/o:redhat:enterprise_linux:7::":          "Red Hat:enterprise_linux:7",
		"cpe:/o:centos:centos:8":                      "",
		"cpe:2.3:o:redhat:enterprise_linux:9":         "",
		"":                                            "",
	} {
		if got := gatehouse.RedHatSpace(cpe); got != want {
			t.Errorf("RedHatSpace(%q) = %q, want %q", cpe, got, want)
		}
	}
}
