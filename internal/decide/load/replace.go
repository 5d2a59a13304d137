package load

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
)

// Replace returns base with the policies of instead put in: a document of base takes
// its leave where one of instead has its kind and name, a module where one has its
// package. All others stay as they are. What of either cannot be read stays, for Load
// to complain about.
func Replace(base, instead []File) []File {
	taken := map[string]bool{}
	for _, f := range instead {
		for _, id := range identities(f) {
			taken[id] = true
		}
	}
	delete(taken, "")
	var out []File
	for _, f := range base {
		if strings.HasSuffix(f.Path, ".rego") {
			if ids := identities(f); len(ids) == 1 && taken[ids[0]] {
				continue
			}
			out = append(out, f)
			continue
		}
		out = append(out, without(f, taken)...)
	}
	return append(out, instead...)
}

// without is a file of manifests without those documents that are taken; the same
// file where none is.
func without(f File, taken map[string]bool) []File {
	docs, problems := manifest.Split(f.Path, f.Data)
	if len(problems) > 0 {
		return []File{f}
	}
	var rest []File
	for i := range docs {
		if !taken[identity(&docs[i])] {
			rest = append(rest, File{Path: f.Path, Data: []byte(docs[i].Text)})
		}
	}
	if len(rest) == len(docs) {
		return []File{f}
	}
	return rest
}

// identities names the policies of a file; "" is one without a name.
func identities(f File) []string {
	if strings.HasSuffix(f.Path, ".rego") {
		p, _ := rego.Load(f.Path, f.Data)
		if p == nil {
			return nil
		}
		return []string{"rego " + p.Name()}
	}
	docs, _ := manifest.Split(f.Path, f.Data)
	var ids []string
	for i := range docs {
		ids = append(ids, identity(&docs[i]))
	}
	return ids
}

func identity(doc *manifest.Document) string {
	if doc.Parse() != nil {
		return ""
	}
	kind, name := doc.Field("kind"), doc.Field("metadata", "name")
	if kind == "" || name == "" {
		return ""
	}
	group, _, _ := strings.Cut(doc.Field("apiVersion"), "/")
	return group + " " + kind + " " + name
}
