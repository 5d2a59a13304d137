package advisory

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// contentBytes is the length of the hash of a whole record.
const contentBytes = 16

// packed is a record in the form in which it is stored.
type packed struct {
	core, doc []byte // doc is JSON still
	rating    int64
	names     []Name // sorted
	entries   [][]byte
	content   [contentBytes]byte // hash of all above: equal content need not be stored again
}

func pack(a gatehouse.Advisory) (packed, error) {
	p := packed{core: encodeCore(a), rating: ratingHash(a)}
	byName := map[Name][]gatehouse.Affected{}
	for _, e := range a.Affected {
		n := Name{e.Space, e.Name}
		byName[n] = append(byName[n], e)
	}
	p.names = slices.SortedFunc(maps.Keys(byName), Name.compare)
	var w writer
	for _, n := range p.names {
		entry := encodeEntry(byName[n])
		p.entries = append(p.entries, entry)
		w.text(n.Space)
		w.text(n.Name)
		w.text(string(entry))
	}
	a.Affected = nil
	var err error
	if p.doc, err = json.Marshal(a); err != nil {
		return packed{}, err
	}
	w.text(string(p.core))
	w.text(string(p.doc))
	sum := sha256.Sum256(w)
	copy(p.content[:], sum[:])
	return p, nil
}

// flawNames returns the names of the flaws that a record speaks of, and whether
// it speaks of that flaw alone.
func flawNames(a gatehouse.Advisory) map[string]bool {
	out := map[string]bool{}
	for _, n := range a.Related {
		if strings.HasPrefix(n, "CVE-") {
			out[n] = false
		}
	}
	for _, n := range a.Upstream {
		out[n] = len(a.Upstream) == 1
	}
	for _, n := range a.Aliases {
		out[n] = true
	}
	out[a.ID] = true
	return out
}

func family(space string) string {
	base, _, _ := strings.Cut(space, ":")
	if f, ok := families[base]; ok {
		return f
	}
	return base
}

// within says which record an error is about.
func within(id string, err error) error {
	var e *gatehouse.Error
	if !errors.As(err, &e) {
		return err
	}
	return gatehouse.Errorf(e.Code, "advisory %s: %w", id, err).WithHint("%s", gatehouse.HintOf(err))
}
