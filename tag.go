package gatehouse

import (
	"path"
	"regexp"
	"slices"
)

// TagPatterns choose tags. In a pattern * (or **) stands for any text, ? for one
// character, [a-c] for one of several and [^a-c] for any other. None chooses nothing.
type TagPatterns []string

// TagPatternsMax bounds the patterns of one list.
const TagPatternsMax = 100

var tagGlobPattern = regexp.MustCompile(`^[a-zA-Z0-9_.*?^\[\]-]+$`)

// ParseTagPatterns reads patterns and sorts them, each once. Errors: CodeInvalid, and
// CodeTooLarge for too many.
func ParseTagPatterns(list []string) (TagPatterns, error) {
	if len(list) > TagPatternsMax {
		return nil, Errorf(CodeTooLarge, "%d patterns of tags, %d at most", len(list), TagPatternsMax)
	}
	for _, p := range list {
		_, err := path.Match(p, "")
		if err != nil || len(p) > tagLengthMax || !tagGlobPattern.MatchString(p) {
			return nil, Errorf(CodeInvalid, "%q is no pattern of tags", clip(p)).
				WithHint("for example v* or release-?.*: * is any text, ? one character, [0-9] one of several; name alternatives one by one")
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(list))), nil
}

// Match finds the first pattern that chooses a tag.
func (p TagPatterns) Match(tag string) (pattern string, ok bool) {
	i := slices.IndexFunc(p, func(one string) bool {
		match, err := path.Match(one, tag)
		return match && err == nil
	})
	if i < 0 {
		return "", false
	}
	return p[i], true
}
