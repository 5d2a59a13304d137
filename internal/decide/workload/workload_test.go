package workload_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

const podSpec = `{"containers":[{"image":"a"},{"image":"b"}],"initContainers":[{"image":"c"}],"ephemeralContainers":[{"image":"d"}],
"volumes":[{"emptyDir":{}},{"image":{"reference":"e"}},{"image":null}]}`

func TestImages(t *testing.T) {
	all := func(prefix string) []string {
		return []string{
			prefix + "spec.containers[0].image=a", prefix + "spec.containers[1].image=b",
			prefix + "spec.initContainers[0].image=c", prefix + "spec.ephemeralContainers[0].image=d",
			prefix + "spec.volumes[1].image.reference=e",
		}
	}
	template := `{"apiVersion":"%s","kind":"%s","spec":{"template":{"spec":` + podSpec + `}}}`
	tests := map[string]struct {
		object string
		want   []string
	}{
		"pod":            {`{"apiVersion":"v1","kind":"Pod","spec":` + podSpec + `}`, all("")},
		"deployment":     {fmt.Sprintf(template, "apps/v1", "Deployment"), all("spec.template.")},
		"statefulset":    {fmt.Sprintf(template, "apps/v1", "StatefulSet"), all("spec.template.")},
		"daemonset":      {fmt.Sprintf(template, "apps/v1", "DaemonSet"), all("spec.template.")},
		"replicaset":     {fmt.Sprintf(template, "apps/v1", "ReplicaSet"), all("spec.template.")},
		"controller":     {fmt.Sprintf(template, "v1", "ReplicationController"), all("spec.template.")},
		"job":            {fmt.Sprintf(template, "batch/v1", "Job"), all("spec.template.")},
		"cronjob":        {`{"apiVersion":"batch/v1","kind":"CronJob","spec":{"jobTemplate":{"spec":{"template":{"spec":` + podSpec + `}}}}}`, all("spec.jobTemplate.spec.template.")},
		"podtemplate":    {`{"apiVersion":"v1","kind":"PodTemplate","template":{"spec":` + podSpec + `}}`, all("template.")},
		"rollout":        {fmt.Sprintf(template, "argoproj.io/v1alpha1", "Rollout"), all("spec.template.")},
		"list":           {`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","spec":` + podSpec + `}]}`, all("items[0].")},
		"podlist":        {`{"apiVersion":"v1","kind":"PodList","items":[{"spec":` + podSpec + `}]}`, all("items[0].")},
		"configmap":      {`{"apiVersion":"v1","kind":"ConfigMap","data":{"containers":"x"}}`, nil},
		"foreign pod":    {`{"apiVersion":"example.com/v1","kind":"Pod","spec":{"containers":"none"}}`, nil},
		"foreign shape":  {`{"apiVersion":"example.com/v1","kind":"X","spec":{"template":{"spec":"text"}}}`, nil},
		"no image":       {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"x"}]}}`, []string{"spec.containers[0].image="}},
		"image is null":  {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":null}]}}`, []string{"spec.containers[0].image="}},
		"empty volume":   {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"a"}],"volumes":[{"image":{}}]}}`, []string{"spec.containers[0].image=a", "spec.volumes[0].image.reference="}},
		"other case too": {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"a","Image":"b"}],"InitContainers":[{"image":"c"}]}}`, []string{"spec.containers[0].image=a"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			obj, err := workload.Decode([]byte(tt.object))
			if err != nil {
				t.Fatal(err)
			}
			images, err := workload.Images(obj)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, im := range images {
				got = append(got, im.Field+"="+im.Written)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("images differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestImagesRefuses(t *testing.T) {
	pod := func(spec string) string { return `{"apiVersion":"v1","kind":"Pod","spec":` + spec + `}` }
	nested := `{"apiVersion":"v1","kind":"Pod","spec":` + podSpec + `}`
	for range 5 {
		nested = `{"apiVersion":"v1","kind":"List","items":[` + nested + `]}`
	}
	tests := map[string]struct {
		object string
		code   gatehouse.Code
		says   string
	}{
		"image is a number":      {pod(`{"containers":[{"image":7}]}`), gatehouse.CodeInvalid, "spec.containers[0].image must be a string, it is a number"},
		"containers is a map":    {pod(`{"containers":{"image":"a"}}`), gatehouse.CodeInvalid, "at least one container"},
		"init is a text":         {pod(`{"containers":[{"image":"a"}],"initContainers":"b"}`), gatehouse.CodeInvalid, "spec.initContainers must be a list"},
		"container is a text":    {pod(`{"containers":["a"]}`), gatehouse.CodeInvalid, "spec.containers[0] must be an object"},
		"volume is a text":       {pod(`{"containers":[{"image":"a"}],"volumes":["b"]}`), gatehouse.CodeInvalid, "spec.volumes[0] must be an object"},
		"volume image is a text": {pod(`{"containers":[{"image":"a"}],"volumes":[{"image":"b"}]}`), gatehouse.CodeInvalid, "spec.volumes[0].image must be an object"},
		"no spec":                {`{"apiVersion":"v1","kind":"Pod"}`, gatehouse.CodeInvalid, "at least one container"},
		"empty containers":       {pod(`{"containers":[]}`), gatehouse.CodeInvalid, "at least one container"},
		"spec is a text":         {pod(`"x"`), gatehouse.CodeInvalid, "spec must be an object"},
		"lists in lists":         {nested, gatehouse.CodeTooLarge, "more than 3 deep"},
		"too many":               {pod(`{"containers":[` + strings.TrimSuffix(strings.Repeat(`{"image":"a"},`, workload.ImagesMax+1), ",") + `]}`), gatehouse.CodeTooLarge, "more than 2000 images"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			obj, err := workload.Decode([]byte(tt.object))
			if err != nil {
				t.Fatal(err)
			}
			_, err = workload.Images(obj)
			if gatehouse.CodeOf(err) != tt.code || !strings.Contains(fmt.Sprint(err), tt.says) {
				t.Errorf("got %q %v, want %q %q", gatehouse.CodeOf(err), err, tt.code, tt.says)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	tests := map[string]struct {
		text string
		says string
	}{
		"empty":          {"", "not JSON"},
		"text":           {`"x"`, "a string, not a JSON object"},
		"list":           {`[]`, "a list, not a JSON object"},
		"broken off":     {`{"a":[1,`, "not JSON"},
		"twice":          {`{"spec":{"a":1,"a":2}}`, `key "a" twice`},
		"twice escaped":  {`{"a":1,"\u0061":2}`, `key "a" twice`},
		"something more": {`{} {}`, "follows"},
		"too deep":       {strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), "deeper than 100"},
		"too many":       {`{"a":[` + strings.Repeat("1,", 500_000) + `1]}`, "more than 100000 values"},
		"too long":       {`{"a":"` + strings.Repeat("x", workload.ObjectSizeMax) + `"}`, "are allowed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := workload.Decode([]byte(tt.text))
			var e *gatehouse.Error
			if !errors.As(err, &e) || !strings.Contains(e.Message, tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

// oddJSON is what readers of JSON differ about.
var oddJSON = []string{
	`{}`, ` { } `, `{"a":[]}`, `{"a":[ ]}`, `{"a":[1,]}`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{"a" 1}`, `{a:1}`, `{'a':1}`, `{"a":1 "b":2}`, `{"a":[1 2]}`,
	`{"a":01}`, `{"a":-}`, `{"a":-0}`, `{"a":-01}`, `{"a":1.}`, `{"a":.5}`, `{"a":1.50}`, `{"a":1e}`, `{"a":1e+}`, `{"a":1E-07}`, `{"a":+1}`, `{"a":1e400}`, `{"a":0x1}`, `{"a":NaN}`,
	`{"a":true,"b":false,"c":null}`, `{"a":tru}`, `{"a":truex}`, `{"a":nul`, `{"a":True}`,
	`{"a":"\u00e9\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":"\ud83dx"}`, `{"a":"\u12"}`, `{"a":"\x"}`, `{"a":"\/\b\f\n\r\t\"\\"}`, `{"a":"\`, `{"a":"\"`, `{"a":"é` + "\u2028" + `"}`,
	"{\"a\":\"\xff\"}", "{\"\xff\":1}", "{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"x\ty\"}", "{\"a\":\"x\x00y\"}", "{\"a\":\"x\x7fy\"}", "{\"a\":1}\x00", "\xef\xbb\xbf{}", "{\"a\":1}\f", "{\"a\":1\u00a0}",
	`{"a":1}}`, `{"a":1}]`, `{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":[`, `{"a":[1`, `{"a":[1,`, `{"a":[}`, `{"a":{]}`, `{"a":{"b":{}},"c":[[],[{}]]}`, `{"":""}`, `{"a":/**/1}`,
}

// sameAsJSON fails where Decode takes what encoding/json refuses, or makes something
// else of it, or calls something no JSON that is.
func sameAsJSON(t *testing.T, data []byte) {
	t.Helper()
	got, err := workload.Decode(data)
	if err != nil {
		if strings.Contains(err.Error(), "not JSON") && json.Valid(data) {
			t.Errorf("%q: %v, but it is", data, err)
		}
		return
	}
	var want map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&want); err != nil || !json.Valid(data) {
		t.Fatalf("%q is taken: %v", data, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%q is read otherwise than by encoding/json (-it +got):\n%s", data, diff)
	}
}

func TestDecodeAsJSON(t *testing.T) {
	for _, text := range oddJSON {
		sameAsJSON(t, []byte(text))
	}
	long := []byte(`{"apiVersion":"v1","kind":"Pod","spec":` + podSpec + `,"metadata":{"n":-12.5e+3,"s":"a\u00e9\n","t":true,"z":null}}`)
	for i := range long { // broken off, and with a byte of everything in each place
		sameAsJSON(t, long[:i])
		for _, c := range []byte("\x00\"\\{}[],:0-.eaZ \n\x80") {
			bad := bytes.Clone(long)
			bad[i] = c
			sameAsJSON(t, bad)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	object := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop","labels":{"app":"web"}},"spec":` + podSpec + `}`)
	b.SetBytes(int64(len(object)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := workload.Decode(object); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPods(t *testing.T) {
	obj, err := workload.Decode([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop"},
		"spec":{"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"image":"a"}]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	before, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := workload.Pods(obj)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(pods)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"Field":"spec.template","Object":{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a":"b"},"name":"web","namespace":"shop"},"spec":{"containers":[{"image":"a"}]}}}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("pods differ (-want +got):\n%s", diff)
	}
	if after, err := json.Marshal(obj); err != nil || string(after) != string(before) {
		t.Errorf("the object was changed: %s", after)
	}
}

func FuzzImages(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod","spec":` + podSpec + `}`))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"batch/v1","kind":"CronJob","spec":{"jobTemplate":{"spec":{"template":{"spec":` + podSpec + `}}}}}]}`))
	f.Add([]byte(`{"apiVersion":"x/v1","kind":"Rollout","spec":{"template":{"spec":{"containers":[{"image":"a"}]}}}}`))
	for _, text := range oddJSON {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sameAsJSON(t, data)
		obj, err := workload.Decode(data)
		if err != nil {
			return
		}
		images, err := workload.Images(obj)
		pods, perr := workload.Pods(obj)
		if (err == nil) && perr != nil {
			t.Fatalf("images are found, Pods are not: %v", perr)
		}
		if err == nil && len(images) > 0 && len(pods) == 0 {
			t.Fatal("images without a Pod")
		}
		for _, im := range images {
			if im.Field == "" {
				t.Fatal("an image without a field")
			}
		}
	})
}
