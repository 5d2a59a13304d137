package licence

import (
	"strings"
)

// Normal returns the SPDX id of a single licence under any of the names that it
// has in package metadata; the name itself where none is known.
func Normal(name string) string {
	name = clean(name)
	if id, ok := known(name); ok {
		return id
	}
	return name
}

// ClassOf returns the class of an SPDX id.
func ClassOf(id string) Class {
	if e, ok := table[strings.ToLower(base(id))]; ok {
		return e.class
	}
	return Unknown
}

// base takes away what says which versions are meant.
func base(id string) string {
	id = strings.TrimSuffix(id, "+")
	id = strings.TrimSuffix(id, "-only")
	return strings.TrimSuffix(id, "-or-later")
}

// written knows names that are ids or aliases as they stand.
func written(name string) (string, bool) {
	lower := strings.ToLower(strings.TrimSuffix(name, "."))
	stem := base(lower)
	if e, ok := table[stem]; ok {
		suffix := lower[len(stem):]
		switch {
		case suffix == "+":
			suffix = "-or-later"
		case suffix == "" && e.versions:
			suffix = "-only" // SPDX 3.0's name of what was GPL-2.0
		}
		if !e.versions {
			suffix = "" // Apache-2.0+ is no id
		}
		return e.id + suffix, true
	}
	id, ok := aliases[lower]
	return id, ok
}

// known also knows names by their words.
func known(name string) (string, bool) {
	if id, ok := written(name); ok {
		return id, true
	}
	tokens := tokensOf(strings.ToLower(name))
	if len(tokens) == 0 {
		return "", false
	}
	if id := gnu(tokens); id != "" {
		return id, true
	}
	if id := family(tokens); id != "" {
		return id, true
	}
	if id, ok := aliases[strings.Join(tokens, " ")]; ok {
		return id, true
	}
	return written(strings.Join(tokens, "-"))
}

// tokensOf takes a name apart into lower-case words and versions, without words
// that tell nothing: "gplv2+" → gpl 2 +, "apache license, version 2.0" → apache
// 2.0.
func tokensOf(lower string) []string {
	if i := strings.IndexByte(lower, '('); i > 0 { // "… (GPLv2+)" says it again
		rest := strings.TrimSpace(lower[i:])
		lower = lower[:i]
		if strings.Contains(rest, "+") || strings.Contains(rest, "later") {
			lower += " +"
		}
	}
	var tokens []string
	for _, w := range strings.FieldsFunc(lower, func(r rune) bool { return strings.ContainsRune(" ,-_\"':;/", r) }) {
		switch w = strings.TrimRight(w, "."); w {
		case "the", "license", "licence", "licensed", "licenses", "version", "under", "terms", "of", "software", "v", "ver", "":
			continue
		}
		plus := strings.HasSuffix(w, "+")
		w = strings.TrimSuffix(w, "+")
		if i := strings.IndexAny(w, "0123456789"); i > 0 {
			if word := strings.TrimSuffix(w[:i], "v"); word != "" {
				tokens = append(tokens, word)
			}
			w = w[i:]
		}
		if w != "" {
			tokens = append(tokens, w)
		}
		if plus {
			tokens = append(tokens, "+")
		}
	}
	return tokens
}

func has(tokens []string, any ...string) bool {
	for _, t := range tokens {
		for _, a := range any {
			if t == a {
				return true
			}
		}
	}
	return false
}

// number returns the first version among tokens, with a minor number.
func number(tokens []string) string {
	for _, t := range tokens {
		if t[0] >= '0' && t[0] <= '9' {
			if !strings.Contains(t, ".") {
				t += ".0"
			}
			return t
		}
	}
	return ""
}

// gnu knows the GPL and its sisters.
func gnu(tokens []string) string {
	public := has(tokens, "gpl") || has(tokens, "general") && has(tokens, "public")
	id, oldest := "", "1.0"
	switch {
	case has(tokens, "agpl") || public && has(tokens, "affero"):
		id, oldest = "AGPL", "3.0"
	case has(tokens, "lgpl") || public && has(tokens, "lesser", "library"):
		id, oldest = "LGPL", "2.0"
	case public:
		id = "GPL"
	case has(tokens, "gfdl", "fdl") || has(tokens, "documentation") && has(tokens, "gnu", "free"):
		id, oldest = "GFDL", "1.1"
	default:
		return ""
	}
	v := number(tokens)
	later := has(tokens, "+", "later", "newer", "higher", "above", "greater", "any")
	if v == "" {
		v, later = oldest, true // no version is any version
	}
	id += "-" + v
	if _, ok := table[strings.ToLower(id)]; !ok {
		return ""
	}
	if later {
		return id + "-or-later"
	}
	return id + "-only"
}

// family knows licences that people name with and without a version, and the
// members of the BSD family.
func family(tokens []string) string {
	v := number(tokens)
	pick := func(prefix, fallback string) string {
		if v == "" {
			v = fallback
		}
		if e, ok := table[strings.ToLower(prefix+"-"+v)]; ok {
			return e.id
		}
		return ""
	}
	switch {
	case has(tokens, "apache", "asl", "apache2"):
		return pick("Apache", "2.0")
	case has(tokens, "mpl") || has(tokens, "mozilla"):
		return pick("MPL", "2.0")
	case has(tokens, "epl") || has(tokens, "eclipse"):
		if has(tokens, "distribution") {
			return "BSD-3-Clause"
		}
		return pick("EPL", "1.0")
	case has(tokens, "cddl"):
		return pick("CDDL", "1.0")
	case has(tokens, "artistic"):
		if has(tokens, "perl") {
			return "Artistic-1.0-Perl"
		}
		return pick("Artistic", "1.0")
	case has(tokens, "boost"):
		return "BSL-1.0"
	case has(tokens, "bsl"): // 1.1 is another licence, from business
		return pick("BSL", "1.0")
	case has(tokens, "zpl", "zope"):
		return pick("ZPL", "2.1")
	case has(tokens, "ofl") || has(tokens, "sil"):
		return pick("OFL", "1.1")
	case has(tokens, "bsd"):
		return bsd(tokens)
	case has(tokens, "mit", "expat"):
		if len(tokens) <= 3 { // "mit", "mit x11", "expat mit", not a sentence
			return "MIT"
		}
	}
	return ""
}

func bsd(tokens []string) string {
	switch {
	case has(tokens, "0", "zero"):
		return "0BSD"
	case has(tokens, "2", "two", "simplified", "freebsd"):
		return "BSD-2-Clause"
	case has(tokens, "4", "four", "original", "old", "advertising"):
		return "BSD-4-Clause"
	case has(tokens, "3", "three", "new", "modified", "revised"), len(tokens) == 1:
		return "BSD-3-Clause"
	}
	if len(tokens) == 2 && has(tokens, "style", "like", "derived") {
		return "BSD-3-Clause"
	}
	return ""
}
