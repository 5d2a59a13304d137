package match_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/osrelease"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// published is how one distribution's release and advisories look.
type published struct {
	name    string
	release string // os-release, as the distribution's own images have it
	space   string // of the advisory, as OSV or, by [gatehouse.SpaceOf], Trivy DB has it
	advised string // the package that the advisory names
	// The package before and after the repair.
	kind, binary, source, vendor string
	before, repaired             string
	// others are spaces of neighbours, whose advisories say nothing here.
	others []string
}

// trivy is where Trivy DB's bucket of a release stands.
func trivy(family, release string) string { return gatehouse.SpaceOf(family, release) }

const suse = "SUSE LLC <https://www.suse.com/>"

var allPublished = []published{
	{"Debian", "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm", "Debian:12", "openssl",
		"deb", "libssl3", "openssl", "", "3.0.11-1~deb12u1", "3.0.11-1~deb12u2", []string{"Debian:11", "Debian:13", "Debian", "Ubuntu:22.04:LTS"}},
	{"Debian LTS", "ID=debian\nVERSION_ID=\"10\"\nVERSION_CODENAME=buster", "Debian:10", "curl",
		"deb", "libcurl4", "curl", "", "7.64.0-4+deb10u6", "7.64.0-4+deb10u7", []string{"Debian:11"}},
	{"Ubuntu", "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"", trivy("ubuntu", "22.04"), "openssl",
		"deb", "libssl3", "openssl", "", "3.0.2-0ubuntu1.10", "3.0.2-0ubuntu1.12", []string{"Ubuntu:20.04:LTS", "Ubuntu:22.10", "Ubuntu:Pro:20.04:LTS", "Debian:12"}},
	{"Ubuntu Pro", "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"18.04\"", trivy("ubuntu", "18.04-ESM"), "curl",
		"deb", "libcurl4", "curl", "", "7.58.0-2ubuntu3.24", "7.58.0-2ubuntu3.24+esm2", []string{"Ubuntu:Pro:16.04:LTS", "Ubuntu:20.04:LTS"}},
	{"Alpine", "ID=alpine\nVERSION_ID=3.18.4\nPRETTY_NAME=\"Alpine Linux v3.18\"", "Alpine:v3.18", "openssl",
		"apk", "libcrypto3", "openssl", "", "3.1.3-r0", "3.1.4-r0", []string{"Alpine:v3.17", "Alpine:v3.1", "Alpine:edge", "Alpine", "Wolfi"}},
	{"Alpine edge", "ID=alpine\nVERSION_ID=3.21.0_alpha20240807\nPRETTY_NAME=\"Alpine Linux edge\"", trivy("alpine", "edge"), "curl",
		"apk", "libcurl", "curl", "", "8.9.0-r0", "8.9.1-r0", []string{"Alpine:v3.20", "Alpine:v3.21"}},
	{"Wolfi", "ID=wolfi\nVERSION_ID=\"20230201\"", trivy("wolfi", ""), "curl", "apk", "libcurl-openssl4", "curl", "", "8.3.0-r1", "8.4.0-r0", []string{"Chainguard", "Alpine:edge"}},
	{"Chainguard", "ID=chainguard\nVERSION_ID=\"20230214\"", trivy("chainguard", ""), "curl", "apk", "libcurl-openssl4", "curl", "", "8.3.0-r1", "8.4.0-r0", []string{"Wolfi"}},
	{"RHEL 9", "ID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"9.2\"", gatehouse.RedHatSpace("cpe:/o:redhat:enterprise_linux:9::baseos"), "curl",
		"rpm", "libcurl", "curl", "Red Hat, Inc.", "7.76.1-23.el9_2.2", "7.76.1-23.el9_2.4", []string{"Red Hat:enterprise_linux:8::baseos", "Red Hat:openshift:4.14::el9", "Red Hat:rhel_eus:9.0::baseos", "Red Hat:jboss_core_services:1"}},
	{"RHEL 9 add-on", "ID=\"rhel\"\nVERSION_ID=\"9.2\"", gatehouse.RedHatSpace("cpe:/a:redhat:enterprise_linux:9::highavailability"), "pcs",
		"rpm", "pcs", "pcs", "Red Hat, Inc.", "0.11.4-6.el9", "0.11.4-7.el9_2", []string{"Red Hat:enterprise_linux:8::highavailability"}},
	{"RHEL 9.0 EUS", "ID=\"rhel\"\nVERSION_ID=\"9.0\"", gatehouse.RedHatSpace("cpe:/o:redhat:rhel_eus:9.0::baseos"), "curl",
		"rpm", "libcurl", "curl", "Red Hat, Inc.", "7.76.1-14.el9_0.5", "7.76.1-14.el9_0.7", []string{"Red Hat:rhel_eus:9.2::baseos", "Red Hat:rhel_eus:8.6::baseos"}},
	{"RHEL 10", "ID=\"rhel\"\nVERSION_ID=\"10.1\"", gatehouse.RedHatSpace("cpe:/o:redhat:enterprise_linux:10.1"), "bash",
		"rpm", "bash", "bash", "Red Hat, Inc.", "5.2.26-5.el10", "5.2.26-6.el10", []string{"Red Hat:enterprise_linux:10.2", "Red Hat:enterprise_linux_eus:10.0", "Red Hat:enterprise_linux:1"}},
	{"RHEL 10 EUS", "ID=\"rhel\"\nVERSION_ID=\"10.2\"", gatehouse.RedHatSpace("cpe:/o:redhat:enterprise_linux_eus:10.2"), "bash",
		"rpm", "bash", "bash", "Red Hat, Inc.", "5.2.26-5.el10_2.1", "5.2.26-5.el10_2.3", []string{"Red Hat:enterprise_linux_eus:10.0"}},
	{"RHEL 7 ELS", "ID=\"rhel\"\nVERSION_ID=\"7.9\"", gatehouse.RedHatSpace("cpe:/o:redhat:rhel_els:7"), "openssl",
		"rpm", "openssl-libs", "openssl", "Red Hat, Inc.", "1:1.0.2k-26.el7_9", "1:1.0.2k-27.el7_9", []string{"Red Hat:rhel_els:6", "Red Hat:enterprise_linux:6::server"}},
	{"RHEL 7 Extras", "ID=\"rhel\"\nVERSION_ID=\"7.9\"", gatehouse.RedHatSpace("cpe:/a:redhat:rhel_extras_other:7"), "podman",
		"rpm", "podman", "podman", "Red Hat, Inc.", "1.6.4-29.el7_9", "1.6.4-32.el7_9", []string{"Red Hat:openshift:3.11::el7"}},
	{"CentOS 7", "ID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"7\"", gatehouse.RedHatSpace("cpe:/o:redhat:enterprise_linux:7::server"), "openssl",
		"rpm", "openssl-libs", "openssl", "CentOS", "1:1.0.2k-25.el7_9", "1:1.0.2k-26.el7_9", []string{"Red Hat:enterprise_linux:6::server"}},
	{"CentOS Stream", "ID=\"centos\"\nVERSION_ID=\"9\"\nPRETTY_NAME=\"CentOS Stream 9\"", gatehouse.RedHatSpace("cpe:/a:redhat:enterprise_linux:9::appstream"), "curl",
		"rpm", "libcurl", "curl", "CentOS", "7.76.1-23.el9", "7.76.1-26.el9", []string{"Red Hat:enterprise_linux:8::baseos", "Fedora:38"}},
	{"AlmaLinux", "ID=\"almalinux\"\nVERSION_ID=\"9.2\"", "AlmaLinux:9", "libcurl",
		"rpm", "libcurl", "curl", "AlmaLinux", "7.76.1-23.el9_2.2", "7.76.1-23.el9_2.4", []string{"AlmaLinux:8", "Rocky Linux:9", "Red Hat:enterprise_linux:9::baseos"}},
	{"Rocky Linux", "ID=\"rocky\"\nVERSION_ID=\"9.2\"", trivy("rocky", "9"), "curl",
		"rpm", "libcurl", "curl", "Rocky Enterprise Software Foundation", "7.76.1-23.el9_2.2", "7.76.1-23.el9_2.4", []string{"Rocky Linux:8", "AlmaLinux:9"}},
	{"Oracle Linux", "ID=\"ol\"\nVERSION_ID=\"9.2\"", trivy("Oracle Linux", "9"), "libcurl",
		"rpm", "libcurl", "curl", "Oracle America", "7.76.1-23.el9_2.2", "7.76.1-23.el9_2.4", []string{"Oracle Linux:8"}},
	{"Amazon Linux 1", "ID=\"amzn\"\nVERSION_ID=\"2018.03\"", trivy("amazon linux", "1"), "openssl",
		"rpm", "openssl", "openssl", "Amazon.com", "1:1.0.2k-16.162.amzn1", "1:1.0.2k-16.163.amzn1", []string{"Amazon Linux:2", "Amazon Linux:2018"}},
	{"Amazon Linux 2", "ID=\"amzn\"\nVERSION_ID=\"2\"", trivy("amazon linux", "2"), "openssl-libs",
		"rpm", "openssl-libs", "openssl", "Amazon Linux", "1:1.0.2k-24.amzn2.0.7", "1:1.0.2k-24.amzn2.0.12", []string{"Amazon Linux:2023", "Amazon Linux:1"}},
	{"Amazon Linux 2023", "ID=\"amzn\"\nVERSION_ID=\"2023\"", trivy("amazon linux", "2023"), "libcurl",
		"rpm", "libcurl", "curl", "Amazon Linux", "8.2.1-1.amzn2023.0.3", "8.3.0-1.amzn2023.0.2", []string{"Amazon Linux:2", "Amazon Linux:2022"}},
	{"Fedora", "ID=fedora\nVERSION_ID=38", "Fedora:38", "curl", "rpm", "libcurl", "curl", "Fedora Project", "8.0.1-4.fc38", "8.0.1-5.fc38", []string{"Fedora:39", "Red Hat:enterprise_linux:9::baseos"}},
	{"SLES, BCI", "ID=\"sles\"\nID_LIKE=\"suse\"\nVERSION_ID=\"15.5\"", trivy("SUSE Linux Enterprise", "15.5"), "libcurl4",
		"rpm", "libcurl4", "curl", suse, "8.0.1-150400.5.29.1", "8.0.1-150400.5.32.1", []string{"SUSE:Linux Enterprise Server 15 SP4", "openSUSE:Leap 15.5", "SUSE:Linux Enterprise Server 15", "SUSE:Linux Enterprise Micro 5.5"}},
	{"SLES 12", "ID=\"sles\"\nVERSION_ID=\"12.5\"", "SUSE:Linux Enterprise Module for Web and Scripting 12", "nodejs18",
		"rpm", "nodejs18", "nodejs18", suse, "18.18.0-8.12.1", "18.18.2-8.15.1", []string{"SUSE:Linux Enterprise Module for Web and Scripting 15 SP5"}},
	{"SLES LTSS", "ID=\"sles\"\nVERSION_ID=\"15.4\"", "SUSE:Linux Enterprise Server 15 SP4-LTSS", "glibc",
		"rpm", "glibc", "glibc", suse, "2.31-150300.52.2", "2.31-150300.68.1", []string{"SUSE:Linux Enterprise Server 15 SP3-LTSS"}},
	{"SLES 16", "ID=\"sles\"\nVERSION_ID=\"16.0\"", "SUSE:Linux Enterprise Server 16.0", "libcurl4",
		"rpm", "libcurl4", "curl", suse, "8.14.1-1.1", "8.14.1-2.1", []string{"SUSE:Linux Enterprise Server 15 SP7", "SUSE:Linux Micro 6.2"}},
	{"SLE Micro", "ID=\"sle-micro\"\nVERSION_ID=\"5.5\"", trivy("SUSE Linux Enterprise Micro", "5.5"), "libcurl4",
		"rpm", "libcurl4", "curl", suse, "8.0.1-150400.5.29.1", "8.0.1-150400.5.32.1", []string{"SUSE:Linux Enterprise Micro 5.4", "SUSE:Linux Enterprise Server 15 SP5"}},
	{"SL Micro", "ID=\"sl-micro\"\nVERSION_ID=\"6.0\"", trivy("SUSE Linux Enterprise Micro", "6.0"), "libcurl4",
		"rpm", "libcurl4", "curl", suse, "8.6.0-1.1", "8.6.0-2.1", []string{"SUSE:Linux Enterprise Micro 5.5", "SUSE:Linux Micro 6.1"}},
	{"openSUSE Leap", "ID=\"opensuse-leap\"\nVERSION_ID=\"15.5\"", trivy("openSUSE Leap", "15.5"), "libcurl4",
		"rpm", "libcurl4", "curl", suse, "8.0.1-150400.5.29.1", "8.0.1-150400.5.32.1", []string{"openSUSE:Leap 15.4", "SUSE:Linux Enterprise Server 15 SP5", "openSUSE:Tumbleweed"}},
	{"openSUSE Tumbleweed", "ID=\"opensuse-tumbleweed\"\nVERSION_ID=\"20231005\"", trivy("openSUSE Tumbleweed", ""), "libcurl4",
		"rpm", "libcurl4", "curl", "openSUSE", "8.3.0-1.1", "8.4.0-1.1", []string{"openSUSE:Leap 15.5"}},
	{"Photon", "ID=photon\nVERSION_ID=5.0", trivy("Photon OS", "5.0"), "curl", "rpm", "curl-libs", "curl", "VMware, Inc.", "8.1.2-5.ph5", "8.1.2-6.ph5", []string{"Photon OS:4.0"}},
	{"Azure Linux 3", "ID=azurelinux\nVERSION_ID=\"3.0\"", trivy("Azure Linux", "3.0"), "curl",
		"rpm", "curl-libs", "curl", "Microsoft Corporation", "8.8.0-1.azl3", "8.8.0-2.azl3", []string{"Azure Linux:2"}},
	{"CBL-Mariner 2", "ID=mariner\nVERSION_ID=\"2.0\"", trivy("CBL-Mariner", "2.0"), "curl",
		"rpm", "curl-libs", "curl", "Microsoft Corporation", "8.3.0-1.cm2", "8.3.0-2.cm2", []string{"Azure Linux:3"}},
}

// TestDistributions: every distribution that we know, from its os-release on: a
// package before the repair has the flaw, the repaired one has not, and what is
// published for neighbours says nothing.
func TestDistributions(t *testing.T) {
	for _, c := range allPublished {
		t.Run(c.name, func(t *testing.T) {
			distro, err := osrelease.Parse(strings.NewReader(c.release))
			if err != nil {
				t.Fatal(err)
			}
			record := func(id, space, fixed string) string {
				return fmt.Sprintf(`{"id": %q, "modified": "2026-01-01T00:00:00Z", "affected": [{"package": {"ecosystem": %q, "name": %q},
					"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": %q}]}]}]}`, id, space, c.advised, fixed)
			}
			records := []string{record("CVE-2026-0001", c.space, c.repaired)}
			for i, other := range c.others {
				records = append(records, record(fmt.Sprintf("CVE-2026-1%03d", i), other, "9999:1-1"))
			}
			if c.kind == "apk" { // which knows no epoch
				for i := range records {
					records[i] = strings.Replace(records[i], "9999:1-1", "9999-r1", 1)
				}
			}
			adv := load(t, []byte("["+strings.Join(records, ",")+"]"))
			for version, want := range map[string]string{c.before: "CVE-2026-0001 " + c.repaired, c.repaired: ""} {
				p := gatehouse.Package{Type: c.kind, Name: c.binary, Version: version, Source: c.source, Vendor: c.vendor, Arch: "x86_64"}
				if c.kind == "rpm" { // SOURCERPM has no epoch
					p.SourceVersion = version
					if _, rest, ok := strings.Cut(version, ":"); ok {
						p.SourceVersion = rest
					}
				}
				got, err := match.Findings(t.Context(), *distro, []gatehouse.Package{p}, adv)
				if err != nil {
					t.Fatal(err)
				}
				var found []string
				for _, f := range got.Findings {
					found = append(found, f.ID+" "+f.FixedVersion)
				}
				if strings.Join(found, ", ") != want || len(got.Uncovered)+len(got.Unmatched) > 0 {
					t.Errorf("%s: %q, want %q (uncovered %q, unmatched %q)", version, found, want, got.Uncovered, got.Unmatched)
				}
			}
		})
	}
}
