package match

import (
	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match/version"
)

// ContentSpacesMax is how many places an image may name itself.
const ContentSpacesMax = contentSpacesMax

// InRange evaluates one range for one version.
func InRange(order version.Order, v string, r gatehouse.Range) bool {
	return (&installed{order: order, version: v}).inRange(r)
}

// Remembered is the bound of what a Matcher keeps, and Keeps what it has.
const Remembered = remembered

func (m *Matcher) Keeps() int { return max(len(m.records), len(m.named)) }

// Spaces lists one OSV ecosystem of each language and distribution.
func Spaces() []string {
	var out []string
	for _, t := range []string{
		"bitnami", "cargo", "composer", "conan", "cran", "gem", "githubactions", "golang", "hackage", "hex",
		"julia", "maven", "npm", "nuget", "pub", "pypi", "swift",
	} {
		out = append(out, gatehouse.LanguageSpace(t))
	}
	for _, d := range distributions {
		out = append(out, d.spaces(gatehouse.Distro{VersionID: "9.4"})...)
	}
	return out
}

// ParseLife reads one line of the table of ends of life.
func ParseLife(line string) Life { return parseLife(line) }

// Lives lists all of them.
func Lives() []string {
	var out []string
	for _, releases := range lives {
		for _, line := range releases {
			out = append(out, line)
		}
	}
	return out
}
