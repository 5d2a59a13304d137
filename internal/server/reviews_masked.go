package server

import (
	"regexp"
	"slices"
	"strings"
)

var (
	// sensitiveEnv are names of environment variables whose values are nobody's business,
	// and sensitiveOption those of options: fewer, for rules look at options
	// (--authorization-mode, --tls-private-key-file).
	sensitiveEnv    = regexp.MustCompile(`(?i)pass|secret|token|credential|auth|private|key|dsn|connection`)
	sensitiveOption = regexp.MustCompile(`(?i)(password|passwd|pwd|passphrase|secret|token|credentials?|(api|access|private|secret|encryption|signing)[-_]?key)$`)
	// secretInURL is the password of a URL.
	secretInURL = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@`)
)

// notKept stands for such a value: rules that look for one still find it.
const notKept = "(not kept)"

// secretNotes are annotations, of objects and of their templates, that hold the object
// once more, or tokens.
var secretNotes = []string{"kubectl.kubernetes.io/last-applied-configuration", "kapp.k14s.io/original", breakGlassAnnotation}

// masked is v without such values and annotations, at whatever place; v is changed.
func masked(v any) any {
	switch v := v.(type) {
	case string:
		return maskedURLs(v)
	case map[string]any:
		for name, inner := range v {
			if list, ok := inner.([]any); ok {
				switch name {
				case "env":
					maskedEnv(list)
				case "args", "command":
					maskedOptions(list)
				}
			}
			if notes, ok := inner.(map[string]any); ok && name == "annotations" {
				for _, key := range secretNotes {
					delete(notes, key)
				}
			}
			v[name] = masked(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = masked(inner)
		}
	}
	return v
}

func maskedURLs(s string) string {
	if !strings.Contains(s, "://") || !strings.Contains(s, "@") {
		return s
	}
	return secretInURL.ReplaceAllString(s, "${1}"+notKept+"@")
}

func maskedEnv(list []any) {
	for _, item := range list {
		entry, _ := item.(map[string]any)
		name, _ := entry["name"].(string)
		if value, ok := entry["value"].(string); ok && value != "" && sensitiveEnv.MatchString(name) {
			entry["value"] = notKept
		}
	}
}

// maskedOptions takes the values of options out of a command line: --password=VALUE,
// --password VALUE, PASSWORD=VALUE.
func maskedOptions(list []any) {
	follows := false // the value of the option before
	for i, item := range list {
		word, _ := item.(string)
		if follows && !strings.HasPrefix(word, "-") && secretValue(word) {
			list[i], follows = notKept, false
			continue
		}
		name, value, has := strings.Cut(word, "=")
		sensitive := sensitiveOption.MatchString(name) && !strings.ContainsAny(name, " \t\n")
		if follows = sensitive && !has && strings.HasPrefix(name, "-"); sensitive && has && secretValue(value) {
			list[i] = name + "=" + notKept
		}
	}
}

// secretValue reports whether the value of an option may be a secret itself: it is not
// where it says where one lies, or whether there is one.
func secretValue(v string) bool {
	return !slices.Contains([]string{"", "true", "false"}, v) && !strings.HasPrefix(v, "/") && !strings.HasPrefix(v, "$(") && !strings.HasPrefix(v, "${")
}
