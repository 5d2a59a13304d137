package match

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// rhel lists the products whose advisories speak of an image: the repositories
// of the release, which stand for each other, and what the image itself says it
// was built from. A flaw that is not repaired yet stands under the product
// without a repository.
//
// What an image says of its repositories (Distro.ContentSets) adds places to
// look and takes none away: packages that somebody puts on top come from
// wherever they like.
func rhel(d gatehouse.Distro) []string {
	major, minor, _ := strings.Cut(d.VersionID, ".")
	number, err := strconv.Atoi(major)
	if err != nil || number <= 0 || number > 99 {
		return nil
	}
	product := rhelProduct + major
	var out []string
	if number < 8 {
		// What is repaired for subscribers of extended life-cycle support only
		// is a flaw of everybody else's.
		out = []string{product + "::server", product + "::workstation", product + "::client", product + "::computenode", product,
			"Red Hat:rhel_extras_other:" + major, "Red Hat:rhel_els:" + major}
	} else {
		for _, repository := range rhelOwn {
			out = append(out, product+"::"+repository)
		}
		out = append(out, product)
	}
	if number >= 10 {
		// From 10 on, each minor release is a product of its own, and what was
		// repaired in an earlier one is in all later ones.
		n, err := strconv.Atoi(minor)
		if err != nil {
			n = rhelMinors
		}
		for i := min(n, rhelMinors); i >= 0; i-- {
			out = append(out, product+"."+strconv.Itoa(i))
		}
	}
	return slices.Concat(out, contentSpaces(d, major, minor, out))
}

// contentSpacesMax bounds the places that an image names itself: each costs a
// look for each of its packages. Real images come to less than a dozen.
const contentSpacesMax = 48

// contentSpaces returns where the image's repositories lead, besides had.
func contentSpaces(d gatehouse.Distro, major, minor string, had []string) []string {
	var out []string
	for _, name := range d.ContentSets {
		spaces, _ := contentSet(name, major, minor)
		for _, s := range spaces {
			if len(out) < contentSpacesMax && !slices.Contains(had, s) && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// rhelOwn are the repositories of the release, in the order of which stands for
// the others. A package that stands in one of them can come from nowhere else.
var rhelOwn = []string{"baseos", "appstream", "crb", "highavailability", "resilientstorage", "nfv", "realtime", "supplementary"}

const rhelProduct = "Red Hat:enterprise_linux:"

// rhelMinors is the last minor release that Red Hat plans for any major one.
const rhelMinors = 10

// rhelStream finds the minor release that a package was built for, "9" and "2"
// in "3.0.7-18.el9_2.1".
var rhelStream = regexp.MustCompile(`\.el(\d+)_(\d+)(?:\.|$)`)

// rhelBuilds adds the extended streams of the minor release that a package was
// built for: whoever stays on it gets repairs under lower versions there.
func rhelBuilds(p gatehouse.Package, spaces []string) []string {
	m := rhelStream.FindStringSubmatch(p.Version)
	if m == nil {
		return spaces
	}
	out := slices.Clone(spaces)
	for _, stream := range rhelStreams {
		for _, s := range streamSpaces(stream, m[1], m[2]) {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// rhelStreams are the products of those who stay on a minor release, by what
// the names of their repositories have for them.
var rhelStreams = []string{"eus", "e4s", "aus", "tus"}

// rhelStreamPrefixes begin the spaces of [rhelStreams].
var rhelStreamPrefixes = []string{
	"Red Hat:rhel_eus:", "Red Hat:rhel_e4s:", "Red Hat:rhel_aus:", "Red Hat:rhel_tus:", "Red Hat:enterprise_linux_eus:",
}

// streamSpaces returns where the advisories of one stream of a minor release
// stand. From 10 on, streams have one product for all repositories.
func streamSpaces(stream, major, minor string) []string {
	if len(major) > 1 {
		return []string{"Red Hat:enterprise_linux_" + stream + ":" + major + "." + minor}
	}
	at := "Red Hat:rhel_" + stream + ":" + major + "." + minor
	return []string{at + "::baseos", at + "::appstream"}
}

// builtForStream reports whether a space is that of an extended stream, of the
// very minor release that a package was built for. What an image says of its
// repositories does not count: a version of a later release is above what was
// repaired in an earlier one's stream, and need not have the repair.
func builtForStream(v, space string) bool {
	m := rhelStream.FindStringSubmatch(v)
	return m != nil && slices.ContainsFunc(rhelStreamPrefixes, func(p string) bool {
		rest, ok := strings.CutPrefix(space, p+m[1]+"."+m[2])
		return ok && (rest == "" || rest[0] == ':')
	})
}

// ofOtherProduct reports whether a space of Red Hat is neither that of the
// release nor of the stream that a package was built for: what is said of a
// package there is said of the one in that product.
func ofOtherProduct(v, space string) bool {
	return strings.HasPrefix(space, "Red Hat:") && !strings.HasPrefix(space, rhelProduct) && !builtForStream(v, space)
}

// The names that Red Hat gives its repositories, without what comes after "__"
// and the ending "-rpms":
//
//	rhel-9-for-x86_64-appstream, rhel-9-for-x86_64-baseos-eus
//	codeready-builder-for-rhel-9-x86_64, fast-datapath-for-rhel-9-x86_64
//	rhocp-4.16-for-rhel-9-x86_64
//	ubi-9-baseos, ubi-9-for-x86_64-appstream
//	rhel-7-server-extras, rhel-7-server-ose-3.11, rhel-server-rhscl-7
var (
	ubiRepository   = regexp.MustCompile(`^ubi-\d+-`)
	oldRepository   = regexp.MustCompile(`^rhel-[67]-server(?:-(?:extras|optional|supplementary))?$`)
	rhelRepository  = regexp.MustCompile(`^rhel-(\d+)-for-[a-z0-9_]+-([a-z-]+?)(?:-(eus|e4s|aus|tus))?$`)
	addOnRepository = regexp.MustCompile(`^(codeready-builder|fast-datapath)-for-rhel-(\d+)-[a-z0-9_]+(?:-(eus|e4s|aus|tus))?$`)
	layeredProduct  = regexp.MustCompile(`^([a-z-]+?)-(\d+(?:\.\d+)*)-for-rhel-(\d+)-[a-z0-9_]+(?:-(?:eus|e4s|aus|tus))?$`)
	layeredServer   = regexp.MustCompile(`^rhel-(7)-server-([a-z-]+?)-(\d+(?:\.\d+)*)$`)
)

// rhelRepositories maps a part of a repository's name to that of its CPE.
var rhelRepositories = map[string]string{
	"baseos": "baseos", "appstream": "appstream", "codeready-builder": "crb", "fast-datapath": "fastdatapath",
	"highavailability": "highavailability", "resilientstorage": "resilientstorage", "nfv": "nfv", "rt": "realtime",
	"sap-netweaver": "sap", "sap-solutions": "sap_hana", "supplementary": "supplementary",
}

// layeredProducts maps what begins the names of a product's repositories to the
// product in its CPE.
var layeredProducts = map[string]string{
	"ansible": "ansible_engine", "ansible-automation-platform": "ansible_automation_platform",
	"cnv": "container_native_virtualization", "jb-eap": "jboss_enterprise_application_platform", "ocp-tools": "ocp_tools",
	"openstack": "openstack", "ose": "openshift", "ossm": "service_mesh", "rhacm": "acm", "rhocp": "openshift", "satellite": "satellite",
}

// contentSet returns where the advisories for a repository of Red Hat stand,
// besides those for the release that everybody reads. major and minor are the
// image's release. known is false for a repository of packages that nobody here
// has heard of.
func contentSet(name, major, minor string) (spaces []string, known bool) {
	name, release, _ := strings.Cut(name, "__")
	name, ok := strings.CutSuffix(name, "-rpms")
	if !ok || strings.HasSuffix(name, "-source") || strings.HasSuffix(name, "-debug") || ubiRepository.MatchString(name) {
		return nil, true
	}
	if m := rhelRepository.FindStringSubmatch(name); m != nil {
		return rhelSpaces(m[2], m[1], m[3], release, major, minor)
	}
	if m := addOnRepository.FindStringSubmatch(name); m != nil {
		return rhelSpaces(m[1], m[2], m[3], release, major, minor)
	}
	if m := layeredProduct.FindStringSubmatch(name); m != nil {
		return layeredSpaces(m[1], m[2], m[3])
	}
	if m := layeredServer.FindStringSubmatch(name); m != nil {
		return layeredSpaces(m[2], m[3], m[1])
	}
	if name == "rhel-server-rhscl-7" {
		return []string{"Red Hat:rhel_software_collections:3::el7", "Red Hat:rhel_software_collections:3"}, true
	}
	return nil, oldRepository.MatchString(name)
}

// rhelSpaces is about a repository of Red Hat Enterprise Linux itself.
func rhelSpaces(repository, of, stream, release, major, minor string) (spaces []string, known bool) {
	repository, known = rhelRepositories[repository]
	if !known || of != major {
		return nil, known
	}
	if stream == "" {
		return []string{rhelProduct + of + "::" + repository}, true
	}
	// "9_DOT_2", perhaps with an architecture behind it. A name without it is
	// about the image's own minor release.
	if number, ok := strings.CutPrefix(release, of+"_DOT_"); ok {
		minor = number[:len(number)-len(strings.TrimLeft(number, "0123456789"))]
	}
	if minor == "" {
		return nil, true
	}
	out := streamSpaces(stream, of, minor)
	if len(of) == 1 && !strings.HasSuffix(out[0], repository) && !strings.HasSuffix(out[1], repository) {
		out = append(out, "Red Hat:rhel_"+stream+":"+of+"."+minor+"::"+repository)
	}
	return out, true
}

// layeredSpaces is about a product on top of a release: what is repaired stands
// under its version, what is not under its major version.
func layeredSpaces(product, v, of string) (spaces []string, known bool) {
	name, ok := layeredProducts[product]
	if !ok {
		return nil, false
	}
	major, _, _ := strings.Cut(v, ".")
	out := []string{"Red Hat:" + name + ":" + v + "::el" + of, "Red Hat:" + name + ":" + v}
	if major != v {
		out = append(out, "Red Hat:"+name+":"+major+"::el"+of, "Red Hat:"+name+":"+major)
	}
	return out, true
}
