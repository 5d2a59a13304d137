package workload_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

func decoded(t testing.TB, text string) map[string]any {
	t.Helper()
	obj, err := workload.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

func TestParsePath(t *testing.T) {
	for _, good := range []string{"spec", "spec.template", "spec.steps[*]", "spec.a.*.b[*].c_d-E"} {
		if _, err := workload.ParsePath(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "spec.", ".spec", "spec..a", "spec[0]", "spec[*][*]", "[*]", "spec.a b", "spec./", strings.Repeat("a.", 20) + "a", strings.Repeat("a", 301)} {
		if _, err := workload.ParsePath(bad); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestPathsLead: what a path leads to tells itself what it is.
func TestPathsLead(t *testing.T) {
	const object = `{"apiVersion":"example.com/v1","kind":"Fleet","spec":{
		"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"image":"t"}]}},
		"podSpec":{"containers":[{"image":"s"}],"initContainers":[{"image":"i"}],"volumes":[{"image":{"reference":"v"}}]},
		"steps":[{"image":"c0"},{"image":"{{later}}"},{"name":"none"},{"image":"c3"},"text"],
		"driver":{"image":"d"}, "number":7,
		"groups":{"b":{"pod":{"spec":{"containers":[{"image":"gb"}]}}},"a":{"pod":{"spec":{"containers":[{"image":"ga"}]}}}}}}`
	for path, want := range map[string][]string{
		"spec.template":              {"spec.template.spec.containers[0].image=t"},
		"spec.podSpec":               {"spec.podSpec.containers[0].image=s", "spec.podSpec.initContainers[0].image=i", "spec.podSpec.volumes[0].image.reference=v"},
		"spec.steps[*]":              {"spec.steps[0].image=c0", "spec.steps[3].image=c3", "spec.steps[4]=text"},
		"spec.driver":                {"spec.driver.image=d"},
		"spec.driver.image":          {"spec.driver.image=d"},
		"spec.groups.*.pod":          {"spec.groups.a.pod.spec.containers[0].image=ga", "spec.groups.b.pod.spec.containers[0].image=gb"},
		"spec.number":                nil,
		"spec.nothing[*].here":       nil,
		"spec.steps.*":               nil,
		"spec.groups[*]":             nil,
		"metadata.annotations.image": nil,
	} {
		obj := decoded(t, object)
		images, err := workload.Images(obj, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		var got []string
		for _, im := range images {
			if path == "spec.template" || !strings.HasPrefix(im.Field, "spec.template.") { // known without a path
				got = append(got, im.Field+"="+im.Written)
			}
			if workload.ImageAt(obj, im.Field) != im.Written {
				t.Errorf("%s: there is no %q at %s", path, im.Written, im.Field)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		pods, err := workload.Pods(obj, path)
		if err != nil || len(pods) == 0 {
			t.Errorf("%s: %d Pods, %v", path, len(pods), err)
		}
	}
	if _, err := workload.Images(decoded(t, object), "spec..x"); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a malformed path: %v", err)
	}
	many := `{"apiVersion":"example.com/v1","kind":"Fleet","spec":{"x":[` + strings.Repeat(`{"image":"a"},`, workload.ImagesMax) + `{"image":"a"}]}}`
	if _, err := workload.Images(decoded(t, many), "spec.x[*]"); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("too many places: %v", err)
	}
}

func TestUnchanged(t *testing.T) {
	pod := func(spec string) string { return `{"apiVersion":"v1","kind":"Pod","spec":` + spec + `}` }
	deployment := func(replicas int, template string) string {
		return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":%d,"template":%s}}`, replicas, template)
	}
	const two = `{"containers":[{"image":"a"},{"image":"b"}],"volumes":[{"image":{"reference":"v"}}]}`
	const template = `{"metadata":{"labels":{"x":"y"}},"spec":{"containers":[{"image":"a"}]}}`
	for name, tt := range map[string]struct{ old, obj, want string }{
		"nothing":           {pod(two), pod(two), "spec.containers[0].image spec.containers[1].image spec.volumes[0].image.reference"},
		"one container":     {pod(two), pod(strings.Replace(two, `"b"`, `"c"`, 1)), "spec.containers[0].image spec.volumes[0].image.reference"},
		"its command":       {pod(two), pod(strings.Replace(two, `"b"`, `"b","command":["x"]`, 1)), "spec.containers[0].image spec.volumes[0].image.reference"},
		"one more":          {pod(`{"containers":[{"image":"a"}]}`), pod(two), "spec.containers[0].image"},
		"the order":         {pod(two), pod(`{"containers":[{"image":"b"},{"image":"a"}]}`), ""},
		"scale":             {deployment(3, template), deployment(1, template), "spec.template.spec.containers[0].image"},
		"image":             {deployment(3, template), deployment(1, strings.Replace(template, `"a"`, `"b"`, 1)), ""},
		"label of template": {deployment(3, template), deployment(3, strings.Replace(template, `"y"`, `"z"`, 1)), ""},
		"another kind":      {deployment(3, template), pod(two), ""},
		"unreadable before": {pod(`{"containers":7}`), pod(two), ""},
		"no containers":     {pod(`{"containers":[]}`), pod(two), ""},
	} {
		t.Run(name, func(t *testing.T) {
			obj := decoded(t, tt.obj)
			same := workload.Unchanged(decoded(t, tt.old), obj)
			images, err := workload.Images(obj)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, im := range images {
				if same[im.Field] {
					got = append(got, im.Field)
				}
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Errorf("%q, want %q", g, tt.want)
			}
		})
	}
}

func TestSetImages(t *testing.T) {
	const object = `{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"a"},{"image":"b"}],"volumes":[{"image":{"reference":"v"}}]}}`
	obj := decoded(t, object)
	out := workload.SetImages(obj, map[string]string{
		"spec.containers[1].image": "B", "spec.volumes[0].image.reference": "V", "spec.containers[7].image": "x", "spec.none.image": "x", "spec.containers[x].image": "x",
	})
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(`"b"`, `"B"`, `"v"}`, `"V"}`).Replace(object)
	if string(b) != want {
		t.Errorf("%s", b)
	}
	if b, _ := json.Marshal(obj); string(b) != object {
		t.Errorf("the object itself was changed: %s", b)
	}
}

func TestMirror(t *testing.T) {
	const object = `{"apiVersion":%q,"kind":"Pod","metadata":{"annotations":{"kubernetes.io/config.mirror":%s}},"spec":{"nodeName":"n"}}`
	for text, want := range map[string]string{
		fmt.Sprintf(object, "v1", `"hash"`):                      "n",
		fmt.Sprintf(object, "v1", `""`):                          "",
		fmt.Sprintf(object, "v1", `7`):                           "",
		fmt.Sprintf(object, "example.com/v1", `"hash"`):          "",
		`{"apiVersion":"v1","kind":"Pod","metadata":"x"}`:        "",
		`{"apiVersion":"v1","kind":"Pod","spec":{"nodeName":1}}`: "",
	} {
		if got := workload.Mirror(decoded(t, text)); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// FuzzObject: whatever an object and a path look like, images are found at the fields
// that are said, and an object is unchanged beside itself.
func FuzzObject(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod","spec":`+podSpec+`}`), "spec")
	f.Add([]byte(`{"apiVersion":"argoproj.io/v1alpha1","kind":"Workflow","spec":{"templates":[{"container":{"image":"a"}},{"script":{"image":"{{b}}"}}]}}`), "spec.templates[*].script")
	f.Add([]byte(`{"apiVersion":"example.com/v1","kind":"X","spec":{"a.b":{"image":"c"},"d/e":[{"image":"f"}]}}`), "spec.*")
	f.Fuzz(func(t *testing.T, b []byte, path string) {
		obj, err := workload.Decode(b)
		if err != nil {
			return
		}
		images, err := workload.Images(obj, path)
		if err != nil {
			return
		}
		if len(images) > workload.ImagesMax {
			t.Fatalf("%d images", len(images))
		}
		same := workload.Unchanged(obj, obj, path)
		for _, im := range images {
			if !same[im.Field] {
				t.Fatalf("%s has changed beside itself", im.Field)
			}
		}
		if _, err := workload.Pods(obj, path); err != nil {
			t.Fatalf("Images can read it, Pods cannot: %v", err)
		}
		workload.SetImages(obj, map[string]string{path: "x"})
		workload.ImageAt(obj, path)
	})
}
