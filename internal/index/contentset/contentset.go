// Package contentset reads the lists of repositories that Red Hat's build
// systems leave in images: in go the bytes of a JSON file, out come the names of
// the repositories. What they stand for is not known here.
package contentset

import (
	"encoding/json"
	"io"
	"regexp"
	"slices"
)

// What is read of one file. Real ones have some hundred KiB, most of them for
// sources, and name less than a dozen repositories.
const (
	SizeMax  = 16 << 20
	NamesMax = 200
)

// nameForm is what a repository's name may look like.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$`)

// Parse returns the names of the repositories, sorted and each once. It returns
// none for what cannot be read: an image without such a file is no other.
func Parse(r io.Reader) []string {
	var file struct {
		Names []string `json:"content_sets"`
	}
	if json.NewDecoder(io.LimitReader(r, SizeMax)).Decode(&file) != nil {
		return nil
	}
	var out []string
	for _, n := range file.Names {
		if len(out) < NamesMax && nameForm.MatchString(n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
