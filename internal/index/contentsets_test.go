package index_test

import (
	"slices"
	"testing"
)

// TestContentSets: an image's repositories are those of all lists that show, and
// only Red Hat's images have any.
func TestContentSets(t *testing.T) {
	rpms := entry{name: "var/lib/rpmmanifest/container-manifest-2", body: "bash\t5.1.8-9.el9\t1\t2\tRed Hat, Inc.\t(none)\t0\tx86_64\t0\tbash-5.1.8-9.el9.src.rpm\n"}
	old := func(name, set string) entry {
		return entry{name: "root/buildinfo/content_manifests/" + name + ".json", body: `{"metadata": {"image_layer_index": 1}, "content_sets": ["` + set + `"]}`}
	}
	const baseos, appstream = "rhel-9-for-x86_64-baseos-rpms", "rhel-9-for-x86_64-appstream-rpms"
	for _, test := range []struct {
		name   string
		layers [][]entry
		want   []string
	}{
		{"none", [][]entry{{release("rhel", "9.4"), rpms}}, nil},
		{"base and product", [][]entry{{release("rhel", "9.4"), rpms, old("ubi9-container-9.4-1", baseos)}, {old("httpd-24-container-1-2", appstream)}}, []string{appstream, baseos}},
		{"newer place", [][]entry{{release("rhel", "9.4"), rpms, {name: "usr/share/buildinfo/content-sets.json", body: `{"content_sets": ["` + baseos + `"]}`}}}, []string{baseos}},
		{"labels beside it", [][]entry{{release("rhel", "9.4"), rpms, {name: "usr/share/buildinfo/labels.json", body: `{"content_sets": ["` + baseos + `"]}`}}}, nil},
		{"replaced", [][]entry{{release("rhel", "9.4"), rpms, old("a", baseos)}, {old("a", appstream)}}, []string{appstream}},
		{"replaced by what cannot be read", [][]entry{{release("rhel", "9.4"), rpms, old("a", baseos)}, {{name: "root/buildinfo/content_manifests/a.json", body: "{"}}}, nil},
		{"deleted", [][]entry{{release("rhel", "9.4"), rpms, old("a", baseos)}, {{name: "root/buildinfo/.wh.content_manifests"}}}, nil},
		{"another distribution", [][]entry{{release("almalinux", "9.4"), rpms, old("a", baseos)}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, inv := composeOf(t, test.layers...)
			if !slices.Equal(inv.Distro.ContentSets, test.want) {
				t.Errorf("%q, want %q", inv.Distro.ContentSets, test.want)
			}
			if !inv.Complete {
				t.Errorf("incomplete: %q", inv.Incomplete)
			}
		})
	}
}
