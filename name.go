package gatehouse

import "strings"

// NormalName returns name as its ecosystem compares it, so that what feeds
// write into [Affected] and what inventories hold meet: PyPI by PEP 503, NuGet
// and Packagist without regard to case, all others as they are. Space is an
// OSV ecosystem with or without its release.
func NormalName(space, name string) string {
	base, _, _ := strings.Cut(space, ":")
	switch base {
	case "PyPI":
		return pep503(name)
	case "NuGet", "Packagist":
		return strings.ToLower(name)
	}
	return name
}

// pep503 is lower case with each run of "-", "_" and "." as one "-".
func pep503(name string) string {
	var b strings.Builder
	for i, run := 0, false; i < len(name); i++ {
		c := name[i]
		if c == '-' || c == '_' || c == '.' {
			if !run {
				b.WriteByte('-')
			}
			run = true
			continue
		}
		run = false
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		b.WriteByte(c)
	}
	return b.String()
}
