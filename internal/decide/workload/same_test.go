package workload_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// onePod is a review of a Pod; NAME, UID and WORD are what may be another each time.
const onePod = `{"uid":"UID","kind":{"kind":"Pod"},"name":"NAME","operation":"CREATE","object":{"kind":"Pod","metadata":{"name":"NAME",
	"generateName":"web-","uid":"UID","creationTimestamp":"UID","labels":{"app":"web","pod-template-hash":"UID"},"ownerReferences":[{"uid":"UID"}],
	"managedFields":[{"time":"UID"}], "annotations":{}},
	"spec":{"hostname":"NAME","volumes":[{"name":"kube-api-access-WORD"},{"name":"data"}],"containers":[{"name":"c","volumeMounts":[
	{"name":"kube-api-access-WORD","readOnly":true}],"env":[{"name":"kube-api-access-ENV"}]}]},"status":{"phase":"UID"}},"oldObject":null}`

func generalOf(t *testing.T, review string) string {
	t.Helper()
	out, ok := workload.AppendGeneral([]byte("before"), []byte(review))
	text, found := strings.CutPrefix(string(out), "before")
	if !ok || !found {
		t.Fatalf("%s: %v %s", review, ok, out)
	}
	return text
}

// TestAppendGeneral: reviews of Pods of one Deployment become equal, and no others.
func TestAppendGeneral(t *testing.T) {
	fill := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(onePod) }
	one := fill("NAME", "web-1", "UID", "1", "WORD", "abcde", "ENV", "1")
	for name, tt := range map[string]struct {
		other string
		same  bool
	}{
		"another of the Deployment":    {fill("NAME", "web-2", "UID", "2", "WORD", "fghij", "ENV", "1"), true},
		"spaces":                       {strings.ReplaceAll(one, ",", " ,\n "), true},
		"another operation":            {strings.Replace(one, "CREATE", "UPDATE", 1), false},
		"another label":                {strings.Replace(one, `"app":"web"`, `"app":"shop"`, 1), false},
		"another volume":               {strings.Replace(one, `"data"`, `"date"`, 1), false},
		"another variable":             {fill("NAME", "web-1", "UID", "1", "WORD", "abcde", "ENV", "2"), false},
		"one field more":               {strings.Replace(one, `"oldObject"`, `"dryRun":true,"oldObject"`, 1), false},
		"a name that somebody gave it": {strings.NewReplacer(`"generateName":"web-"`, `"generateName":""`, `[{"uid":"1"}]`, "[ ]").Replace(one), false},
	} {
		if same := generalOf(t, one) == generalOf(t, tt.other); same != tt.same {
			t.Errorf("%s: %v\n%s", name, same, generalOf(t, tt.other))
		}
	}
	if got := generalOf(t, one); strings.Contains(got, "web-1") || strings.Contains(got, "abcde") {
		t.Error(got)
	}
	given := func(name string) string {
		return `{"name":"` + name + `","object":{"metadata":{"name":"` + name + `"},"spec":{"hostname":"` + name + `"}}}`
	}
	if got := generalOf(t, given("a")); got != given("a") {
		t.Error(got)
	}
	for _, bad := range []string{"", "{", `{"a"`, `{"a":`, `{"a":1`, `{"a" 1}`, `{"a":1}}`, `{"object":[}`, `{a:1}`, `{"object":{"metadata":{`} {
		if out, ok := workload.AppendGeneral(nil, []byte(bad)); ok {
			t.Errorf("%q became %s", bad, out)
		}
	}
}

// FuzzAppendGeneral: what is left out is only what General leaves out.
func FuzzAppendGeneral(f *testing.F) {
	f.Add(onePod)
	f.Add(`{"object":{"metadata":{"ownerReferences":[]},"\u0073pec":{"volumes":[{"name":"kube-api-access-\u0041"},7]}},"name":"a"}`)
	f.Add(`{"oldObject":{"metadata":{"generateName":"a"},"spec":{"hostname":[]}},"object":{"metadata":7},"name":{}}`)
	f.Add(`{"uid":"\\","object":{"metadata":{"labels":{"job-name":"}"},"name":"\""}}}`)
	f.Fuzz(func(t *testing.T, review string) {
		out, ok := workload.AppendGeneral(nil, []byte(review))
		want, err := workload.Decode([]byte(review))
		if err != nil {
			return
		}
		got, err := workload.Decode(out)
		if err != nil || !ok {
			t.Fatalf("%s: %v, %v", out, ok, err)
		}
		for _, request := range []map[string]any{want, got} {
			delete(request, "uid")
		}
		if object, _ := want["object"].(map[string]any); object != nil {
			if _, generated := workload.General(object); generated {
				delete(want, "name")
				delete(got, "name")
			}
		}
		for _, request := range []map[string]any{want, got} {
			for _, name := range []string{"object", "oldObject"} {
				object, ok := request[name].(map[string]any)
				if !ok {
					continue
				}
				delete(object, "status")
				if meta, ok := object["metadata"].(map[string]any); ok {
					delete(meta, "managedFields")
				}
				request[name], _ = workload.General(object)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s\nbecame %s (-want +got):\n%s", review, out, d)
		}
	})
}
