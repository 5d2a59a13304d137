package match

import (
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match/version"
)

// installed is a package version on the line of versions of its ecosystem.
type installed struct {
	order   version.Order
	version string
	// unordered versions are none by the rules of their ecosystem (Unmatchable
	// tells of it): only lists that name them letter by letter can hold them.
	unordered bool
	arch      string
	// What distributions of rpms build apart, and repair apart.
	rpm     bool
	module  string // "nodejs:16" of an rpm from a module stream
	modular bool   // from a module, even where the stream is unknown
	flavour string // of Oracle Linux: "ksplice", "fips"
}

// newInstalled places p on the line of versions of a key. The version is empty
// where it has none to compare.
func newInstalled(p gatehouse.Package, k Key) (*installed, error) {
	order, err := version.For(k.Space)
	if err != nil {
		return nil, err
	}
	v := &installed{order: order, version: comparedVersion(p, k), arch: p.Arch, rpm: p.Type == "rpm"}
	if v.rpm {
		v.module = stream(p.Modularity)
		v.modular = v.module != "" || strings.Contains(p.Version, moduleMark)
		v.flavour = flavour(v.version)
	}
	v.unordered = v.version != "" && order.Valid(v.version) != nil
	return v, nil
}

// concerns reports whether an entry of a record speaks of packages built as v
// was: for its architecture, in its module stream, of its flavour, under the
// record's topic.
func (v *installed) concerns(topic string, a gatehouse.Affected) bool {
	if len(a.Arches) > 0 && !v.onArch(a.Arches) {
		return false
	}
	return !v.rpm || v.sameModule(a) && v.sameFlavour(a) && v.sameTopic(topic)
}

// onArch: what is built for no architecture in particular is on all, and so is
// what does not tell its own.
func (v *installed) onArch(arches []string) bool {
	if v.arch == "" || v.arch == "noarch" {
		return true
	}
	system, machine, isPair := strings.Cut(v.arch, "/")
	for _, a := range arches {
		if a == v.arch {
			return true
		}
		s, m, ok := strings.Cut(a, "/")
		if ok && isPair && (s == "*" || s == system) && (m == "*" || m == machine) {
			return true
		}
	}
	return false
}

// flavour tells apart what Oracle builds more than once of one version:
// libraries that Ksplice patches in memory, and validated cryptography. Each is
// repaired under versions of its own that only compare with themselves.
func flavour(evr string) string {
	switch {
	case strings.Contains(evr, ".ksplice"):
		return "ksplice"
	case strings.HasSuffix(evr, "_fips"):
		return "fips"
	}
	return ""
}

func (v *installed) sameFlavour(a gatehouse.Affected) bool {
	for _, r := range a.Ranges {
		for _, e := range r.Events {
			if e.Fixed != "" {
				return flavour(e.Fixed) == v.flavour
			}
		}
	}
	return true
}

// amazonTopic finds the topic of Amazon Linux 2's extras in the id of an
// advisory: "KERNEL-5.10" in ALASKERNEL-5.10-2024-055, also written
// ALAS2KERNEL-5.10-2024-055.
var amazonTopic = regexp.MustCompile(`^ALAS2?([A-Z][A-Z-]*?)-?(\d[\d.]*)?(?:-\d{4}-\d+)$`)

// topicNumber returns the number of the topic that an advisory is about, "" for
// one without: a topic without a number (DOCKER) has one line of versions.
func topicNumber(id string) string {
	if !strings.HasPrefix(id, "ALAS") {
		return ""
	}
	if m := amazonTopic.FindStringSubmatch(id); m != nil {
		return strings.TrimRight(m[2], ".")
	}
	return ""
}

// sameTopic keeps apart the topics of Amazon's extras: the postgresql of topic
// POSTGRESQL14 does not repair the one of POSTGRESQL13.
func (v *installed) sameTopic(number string) bool {
	if number == "" {
		return true
	}
	upstream := v.version
	if _, rest, ok := strings.Cut(upstream, ":"); ok {
		upstream = rest
	}
	// Java 8 calls itself 1.8.
	return begins(upstream, number) || begins(upstream, "1."+number)
}

// begins reports whether the numbers of v begin with those of prefix.
func begins(v, prefix string) bool {
	rest, ok := strings.CutPrefix(v, prefix)
	return ok && (rest == "" || rest[0] < '0' || rest[0] > '9')
}

// affects reports whether one entry of an advisory holds v.
func (v *installed) affects(a gatehouse.Affected) bool {
	return slices.Contains(a.Versions, v.version) || slices.ContainsFunc(a.Ranges, v.inRange)
}

// inRange is the OSV schema's evaluation of affected[].ranges[]: the event that
// stands last among those at or before v decides, wherever it is in the list;
// of two at the same version, the later in the list. Limits end the range for
// all of its events.
//
// An event whose version cannot be compared counts against v: an introduction
// as passed, a repair as not reached unless v is beyond all it can mean. A wrong finding can be seen, a missing
// one cannot.
func (v *installed) inRange(r gatehouse.Range) bool {
	if v.unordered {
		return false
	}
	order := v.orderOf(r)
	affected, last, limited, within := false, "", false, false
	for _, e := range r.Events {
		if e.Limit != "" {
			limited = true
			c, err := order.Compare(v.version, e.Limit)
			within = within || e.Limit == "*" || err != nil || c < 0
			continue
		}
		at := e.Introduced + e.Fixed + e.LastAffected
		if e.Introduced == "0" {
			// Before every version, and so decided by whatever else is passed.
			affected = affected || last == ""
			continue
		}
		if e.Fixed == "0" {
			return false // Alpine's and Debian's way to write "never affected"
		}
		c, err := order.Compare(v.version, at)
		if err != nil && e.Fixed != "" {
			if up, ok := order.Ceiling(at); ok {
				at = up
				c, err = order.Compare(v.version, at)
			}
		}
		switch {
		case err != nil:
			affected = affected || e.Introduced != "" && last == ""
			continue
		case c < 0 || c == 0 && e.LastAffected != "":
			continue // not passed
		}
		if last != "" {
			if c, err := order.Compare(at, last); err == nil && c < 0 {
				continue // another one that was passed stands later
			}
		}
		affected, last = e.Introduced != "", at
	}
	return affected && (!limited || within)
}

// orderOf returns the order that a range's type asks for. A SEMVER range for an
// ecosystem with an order of its own is read in that order where the installed
// version is no semantic one.
func (v *installed) orderOf(r gatehouse.Range) version.Order {
	if r.Type == "SEMVER" && v.order.Name() != "semver" && version.Semver().Valid(v.version) == nil {
		return version.Semver()
	}
	return v.order
}

// fixes returns the versions above v that an entry names as repaired.
func (v *installed) fixes(a gatehouse.Affected) []string {
	var out []string
	for _, r := range a.Ranges {
		for _, e := range r.Events {
			if e.Fixed == "" {
				continue
			}
			if c, err := v.orderOf(r).Compare(e.Fixed, v.version); err == nil && c > 0 {
				out = append(out, e.Fixed)
			}
		}
	}
	return out
}

// sameModule keeps apart what rpm modules keep apart: nodejs of stream 16 is
// not repaired by the one of stream 18, and neither by a package outside all
// modules. Where the package does not tell its stream (no MODULARITYLABEL), the
// first number of the repaired version stands in for it, which is what most
// streams are named by.
func (v *installed) sameModule(a gatehouse.Affected) bool {
	repaired := ""
	for _, r := range a.Ranges {
		for _, e := range r.Events {
			if strings.Contains(e.Fixed, moduleMark) {
				repaired = e.Fixed
			}
		}
	}
	if modular := len(a.Modules) > 0 || repaired != ""; modular != v.modular {
		return false
	} else if !modular {
		return true
	}
	if v.module != "" && len(a.Modules) > 0 {
		return slices.Contains(a.Modules, v.module)
	}
	return repaired == "" || firstNumber(repaired) == firstNumber(v.version)
}

// moduleMark is in the release of every package that a module build made.
const moduleMark = ".module"

// stream returns name and stream of a MODULARITYLABEL
// ("nodejs:16:8050020211213115342:c5368500").
func stream(label string) string {
	parts := strings.SplitN(label, ":", 3)
	if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
		return ""
	}
	return parts[0] + ":" + parts[1]
}

// firstNumber returns an EVR's first number without the epoch.
func firstNumber(evr string) string {
	if _, rest, ok := strings.Cut(evr, ":"); ok {
		evr = rest
	}
	n, _, _ := strings.Cut(evr, ".")
	return n
}
