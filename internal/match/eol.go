package match

import (
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Life is for how long a release of a distribution gets security updates, as
// its vendor has published it. Each time is the end of the last day; a vendor
// that names a month means its last day. Zero: there is no such phase.
type Life struct {
	Standard time.Time // for everybody, by the distribution's own security team
	LongTerm time.Time // for everybody, after that (Debian LTS)
	Extended time.Time // for who pays or subscribes (Ubuntu Pro, RHEL ELS, SUSE LTSS)
}

// EOL returns when the phase of support ends that holds at now: a release with
// free long-term support has several. After the last phase that everybody gets
// it is that one's end, so that the release is at its end of life if and only if
// eol is before now. known is false for what has no end (Wolfi, Tumbleweed) or
// whose end is not in the table: nobody then knows, which is no support either.
func EOL(d gatehouse.Distro, now time.Time) (eol time.Time, known bool) {
	life, known := LifeOf(d)
	if known && life.Standard.Before(now) && !life.LongTerm.IsZero() {
		return life.LongTerm, true
	}
	return life.Standard, known
}

// Ended reports whether a release gets no more updates at now; nil if that is
// not known.
func Ended(d gatehouse.Distro, now time.Time) *bool {
	eol, known := EOL(d, now)
	if !known {
		return nil
	}
	ended := eol.Before(now)
	return &ended
}

// LifeOf returns all phases of a release; false for one that is not in the
// table.
func LifeOf(d gatehouse.Distro) (Life, bool) {
	id, release := d.ID, d.VersionID
	switch id {
	case "centos":
		if strings.Contains(strings.ToLower(d.Name), "stream") || release == "9" || release == "10" {
			id = "centos-stream"
		}
	case "debian":
		if release == "" {
			release = debianCodenames[d.Codename]
		}
	case "sled", "sles_sap", "sle_hpc":
		id = "sles"
	case "amzn":
		if len(release) == len("2018.03") && release < "2022" {
			release = "1"
		}
	case "alpine":
		if strings.Contains(release, "_") { // a snapshot of what will be a release
			return Life{}, false
		}
	}
	releases := lives[id]
	// "12.5" is Debian 12, "3.20.3" Alpine 3.20, "15.6" is SLES 15 SP6.
	for r := release; r != ""; {
		if line, ok := releases[r]; ok {
			return parseLife(line), true
		}
		i := strings.LastIndexByte(r, '.')
		if i < 0 || id == "sles" || strings.HasPrefix(id, "opensuse") {
			break
		}
		r = r[:i]
	}
	return Life{}, false
}

// parseLife reads "2024-08-14", "2024-08-14 2026-08-31" or "2025-05-31 -
// 2030-04-30": standard, long-term, extended.
func parseLife(line string) Life {
	var ends [3]time.Time
	for i, field := range strings.Fields(line) {
		if day, err := time.Parse(time.DateOnly, field); err == nil {
			ends[i] = day.AddDate(0, 0, 1).Add(-time.Second)
		}
	}
	return Life{Standard: ends[0], LongTerm: ends[1], Extended: ends[2]}
}

// lives are the published ends by os-release's ID and release.
var lives = map[string]map[string]string{
	// wiki.debian.org/DebianReleases, wiki.debian.org/LTS
	"debian": {
		"6": "2014-05-31 2016-02-29", "7": "2016-04-25 2018-05-31", "8": "2018-06-17 2020-06-30", "9": "2020-07-18 2022-06-30",
		"10": "2022-09-10 2024-06-30", "11": "2024-08-14 2026-08-31", "12": "2026-06-10 2028-06-30", "13": "2028-08-09 2030-06-30",
	},
	// ubuntu.com/about/release-cycle, wiki.ubuntu.com/Releases
	"ubuntu": {
		"12.04": "2017-04-28 - 2019-04-30", "14.04": "2019-04-25 - 2024-04-30", "16.04": "2021-04-30 - 2026-04-30",
		"18.04": "2023-05-31 - 2028-04-30", "20.04": "2025-05-31 - 2030-04-30", "22.04": "2027-04-30 - 2032-04-30",
		"24.04": "2029-05-31 - 2034-04-30", "26.04": "2031-04-30 - 2036-04-30",
		"16.10": "2017-07-20", "17.04": "2018-01-13", "17.10": "2018-07-19", "18.10": "2019-07-18", "19.04": "2020-01-23",
		"19.10": "2020-07-17", "20.10": "2021-07-22", "21.04": "2022-01-20", "21.10": "2022-07-14", "22.10": "2023-07-20",
		"23.04": "2024-01-25", "23.10": "2024-07-11", "24.10": "2025-07-10", "25.04": "2026-01-17", "25.10": "2026-07-31",
	},
	// alpinelinux.org/releases
	"alpine": {
		"3.0": "2016-05-01", "3.1": "2016-11-01", "3.2": "2017-05-01", "3.3": "2017-11-01", "3.4": "2018-05-01", "3.5": "2018-11-01",
		"3.6": "2019-05-01", "3.7": "2019-11-01", "3.8": "2020-05-01", "3.9": "2020-11-01", "3.10": "2021-05-01", "3.11": "2021-11-01",
		"3.12": "2022-05-01", "3.13": "2022-11-01", "3.14": "2023-05-01", "3.15": "2023-11-01", "3.16": "2024-05-23", "3.17": "2024-11-22",
		"3.18": "2025-05-09", "3.19": "2025-11-01", "3.20": "2026-04-01", "3.21": "2026-11-01", "3.22": "2027-05-01", "3.23": "2027-11-01",
	},
	// access.redhat.com/support/policy/updates/errata
	"rhel": {
		"5": "2017-03-31 - 2020-11-30", "6": "2020-11-30 - 2024-06-30", "7": "2024-06-30 - 2028-06-30",
		"8": "2029-05-31 - 2032-05-31", "9": "2032-05-31 - 2035-05-31", "10": "2035-05-31 - 2038-05-31",
	},
	// www.centos.org/cl-vs-cs
	"centos":        {"5": "2017-03-31", "6": "2020-11-30", "7": "2024-06-30", "8": "2021-12-31"},
	"centos-stream": {"8": "2024-05-31", "9": "2027-05-31", "10": "2030-05-31"},
	// wiki.almalinux.org, wiki.rockylinux.org
	"almalinux": {"8": "2029-03-01", "9": "2032-05-31", "10": "2035-05-31"},
	"rocky":     {"8": "2029-05-31", "9": "2032-05-31", "10": "2035-05-31"},
	// oracle.com: Lifetime Support Policy, Oracle Linux; Premier Support
	"ol": {
		"5": "2017-06-30 - 2020-11-30", "6": "2021-03-31 - 2024-12-31", "7": "2024-12-31 - 2028-06-30",
		"8": "2029-07-31 - 2032-07-31", "9": "2032-06-30 - 2035-06-30", "10": "2035-06-30 - 2038-06-30",
	},
	// aws.amazon.com/amazon-linux-2/faqs, docs.aws.amazon.com/linux/al2023
	"amzn": {"1": "2023-12-31", "2": "2026-06-30", "2023": "2029-06-30"},
	// docs.fedoraproject.org/en-US/releases/eol
	"fedora": {
		"30": "2020-05-26", "31": "2020-11-24", "32": "2021-05-25", "33": "2021-11-30", "34": "2022-06-07", "35": "2022-12-13",
		"36": "2023-05-16", "37": "2023-12-05", "38": "2024-05-21", "39": "2024-11-26", "40": "2025-05-13", "41": "2025-12-15", "42": "2026-05-13",
		"43": "2026-12-09",
	},
	// www.suse.com/lifecycle: general support, LTSS
	"sles": {
		"11.3": "2016-01-31 - 2019-01-31", "11.4": "2019-03-31 - 2022-03-31",
		"12": "2016-06-30 - 2019-07-01", "12.1": "2017-05-31 - 2020-05-31", "12.2": "2018-03-31 - 2021-03-31",
		"12.3": "2019-06-30 - 2022-06-30", "12.4": "2020-06-30 - 2023-06-30", "12.5": "2024-10-31 - 2027-10-31",
		"15": "2019-12-31 - 2022-12-31", "15.1": "2021-01-31 - 2024-01-31", "15.2": "2021-12-31 - 2024-12-31",
		"15.3": "2022-12-31 - 2025-12-31", "15.4": "2023-12-31 - 2026-12-31", "15.5": "2024-12-31 - 2027-12-31",
		"15.6": "2025-12-31 - 2028-12-31", "15.7": "2031-07-31 - 2034-07-31",
	},
	// en.opensuse.org/Lifetime
	"opensuse-leap": {
		"42.1": "2017-05-17", "42.2": "2018-01-26", "42.3": "2019-07-01", "15.0": "2019-12-03", "15.1": "2021-02-02", "15.2": "2022-01-04",
		"15.3": "2022-12-31", "15.4": "2023-12-07", "15.5": "2024-12-31", "15.6": "2026-04-30", "16.0": "2027-10-31",
	},
	// github.com/vmware/photon: planned end of support
	"photon": {"1": "2022-02-28", "2": "2022-12-31", "3": "2025-10-02", "4": "2027-10-11"},
	// learn.microsoft.com/azure/aks: Azure Linux
	"mariner": {"1": "2023-07-31", "2": "2025-07-31"},
	// www.mageia.org/support
	"mageia": {"6": "2019-09-30", "7": "2021-06-30", "8": "2023-11-30"},
}
