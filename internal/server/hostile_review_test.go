package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// lax is a server that lets run what no policy speaks of: there a name that dodges the
// policies is all that somebody needs. One policy wants signatures of its own images,
// the other bans one of Docker Hub.
func lax(t *testing.T) (r *running, signed, unsigned string) {
	t.Helper()
	k := signer(t)
	r = start(t, t.TempDir(), func(c *config.Config) { c.NoMatch = "allow" })
	r.must("PUT", "/api/v1/policies/signed.yaml", signedBy("signed", "registry.example/**", k))
	r.must("PUT", "/api/v1/policies/banned.yaml", passes("banned", "index.docker.io/library/evil**", "fail"))
	signed = "registry.example/a/b:1@" + r.push("a/b:1")
	_, digest, _ := strings.Cut(signed, "@")
	r.signImage(k, "a/b", digest, sign.Options{})
	return r, signed, "registry.example/a/evil:1@" + r.push("a/evil:1")
}

// TestNamesThatDodge: no way of writing a name leads round a policy where everything else
// may run. What is a name of something else is that.
func TestNamesThatDodge(t *testing.T) {
	r, signed, unsigned := lax(t)
	_, digest, _ := strings.Cut(unsigned, "@")
	host := strings.TrimPrefix(r.url, "http://")
	port := host[strings.LastIndex(host, ":")+1:]
	for image, code := range map[string]string{
		signed:                                                   "", // the only one of these that may run
		"other.example/a/b:1":                                    "",
		"docker.io/library/a:1":                                  "",
		unsigned:                                                 "signature-missing",
		"REGISTRY.EXAMPLE/a/evil@" + digest:                      "signature-missing",
		"registry.example:443/a/evil@" + digest:                  "signature-missing",
		"registry.example:0443/a/evil@" + digest:                 "signature-missing",
		"registry.example:00443/a/evil@" + digest:                "signature-missing",
		"registry.example:80/a/evil@" + digest:                   "signature-missing",
		host + "/a/evil@" + digest:                               "signature-missing",
		"127.1:" + port + "/a/evil@" + digest:                    "signature-missing",
		"0x7f.0.0.1:" + port + "/a/evil@" + digest:               "signature-missing",
		"[::ffff:127.0.0.1]:" + port + "/a/evil@" + digest:       "signature-missing",
		"localhost:" + port + "/a/evil@" + digest:                "signature-missing",
		"registry.example./a/evil@" + digest:                     "reference-invalid",
		"user@registry.example/a/evil@" + digest:                 "reference-invalid",
		"user:x@registry.example/a/evil:1":                       "reference-invalid",
		"registry.example/a/evil:1?x=registry.example/a/b":       "reference-invalid",
		"registry.example/a/evil:1#" + signed:                    "reference-invalid",
		"//registry.example/a/evil:1":                            "reference-invalid",
		"registry.example\\a\\evil:1":                            "reference-invalid",
		"registry.example/a/evil%3a1":                            "reference-invalid",
		"registry.exam\u200bple/a/evil:1":                        "reference-invalid",
		"ｒegistry.example/a/evil:1":                              "reference-invalid",
		"registry.example/a/evil:1@SHA256:" + digest[7:]:         "reference-invalid",
		"registry.example/a/evil@" + strings.ToUpper(digest):     "reference-invalid",
		"registry.example/a/evil@" + digest + "@" + digest:       "reference-invalid",
		"registry.example/a/evil@sha512:" + digest[7:]:           "reference-invalid",
		"registry.example/a/evil@sha384:" + digest[7:]:           "reference-invalid",
		"[fe80::1%25eth0]:5000/a/evil:1":                         "reference-invalid",
		"registry.example:99999999/a/evil:1":                     "reference-invalid",
		digest:                                                   "reference-invalid", // of an image that the node has
		"sha256:" + digest[7:19]:                                 "reference-invalid",
		digest[7:]:                                               "reference-invalid",
		"registry.example/" + strings.Repeat("a/", 5000) + "b:1": "reference-invalid",
		"registry.example/a/evil:" + strings.Repeat("t", 5000):   "reference-invalid",
		"evil":                                "static-fail",
		"evil@" + digest:                      "static-fail",
		"registry-1.docker.io/library/evil:1": "static-fail",
		"Registry-1.Docker.io:443/library/evil:1":        "static-fail",
		"registry.hub.docker.com/library/evil@" + digest: "static-fail",
		"index.docker.io:443/library/evil:1":             "static-fail",
		"docker.io:0443/library/evil:1":                  "static-fail",
	} {
		allowed, message := r.review(image)
		if allowed != (code == "") || !strings.Contains(message, code) {
			t.Errorf("%.100q: allowed %v, want %q: %.300s", image, allowed, code, message)
		}
	}
}

// TestObjectsThatDodge: neither odd objects nor odd requests lead round a policy. Each is
// the same Pod, or what makes it, and none may be admitted.
func TestObjectsThatDodge(t *testing.T) {
	r, signed, unsigned := lax(t)
	good, bad := fmt.Sprintf(`{"name":"g","image":%q}`, signed), fmt.Sprintf(`{"name":"x","image":%q}`, unsigned)
	kind := func(group, name string) string {
		return fmt.Sprintf(`"kind":{"group":%q,"version":"v1","kind":%q},`, group, name)
	}
	create := func(group, name, object string) string {
		return `"uid":"u1","operation":"CREATE","namespace":"shop",` + kind(group, name) + `"object":` + object
	}
	update := func(sub, old, object string) string {
		return `"uid":"u1","operation":"UPDATE","namespace":"shop","subResource":"` + sub + `",` + kind("", "Pod") + `"oldObject":` + old + `,"object":` + object
	}
	pod := func(spec string) string {
		return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{` + spec + `}}`
	}
	one := `"containers":[` + good + `]`
	withBad := func(list string) string { return pod(one + `,"` + list + `":[` + bad + `]`) }
	template := func(api, kind, path string) string {
		open, end := "", ""
		for _, step := range strings.Split(path, ".") {
			open, end = open+`"`+step+`":{`, end+`}`
		}
		return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":"p"},%s"spec":{%s,"initContainers":[%s]}%s}`, api, kind, open, one, bad, end)
	}
	for name, request := range map[string]string{
		"generateName":                    create("", "Pod", strings.Replace(pod(`"containers":[`+bad+`]`), `"name":"p"`, `"generateName":"p-"`, 1)),
		"an ephemeral container":          update("ephemeralcontainers", pod(one), withBad("ephemeralContainers")),
		"one without the subresource":     update("", pod(one), withBad("ephemeralContainers")),
		"an image in a resize":            update("resize", pod(one), pod(`"containers":[`+bad+`]`)),
		"an image in a status":            update("status", pod(one), pod(`"containers":[`+bad+`]`)),
		"another image":                   update("", pod(one), pod(`"containers":[`+bad+`]`)),
		"the other container's image":     update("", pod(`"containers":[`+good+`,`+bad+`]`), pod(`"containers":[`+bad+`,`+good+`]`)),
		"the same in another list":        update("", pod(`"initContainers":[`+bad+`],`+one), pod(`"containers":[`+bad+`]`)),
		"what was a workload":             update("", template("apps/v1", "Deployment", "spec.template"), withBad("initContainers")),
		"no object before":                update("", "null", withBad("initContainers")),
		"an odd object before":            update("", `{"kind":"Pod","spec":{"initContainers":{}}}`, withBad("initContainers")),
		"a Deployment":                    create("apps", "Deployment", template("apps/v1", "Deployment", "spec.template")),
		"a StatefulSet":                   create("apps", "StatefulSet", template("apps/v1", "StatefulSet", "spec.template")),
		"a CronJob":                       create("batch", "CronJob", template("batch/v1", "CronJob", "spec.jobTemplate.spec.template")),
		"a ReplicationController":         create("", "ReplicationController", template("v1", "ReplicationController", "spec.template")),
		"a PodTemplate":                   create("", "PodTemplate", template("v1", "PodTemplate", "template")),
		"a kind of somebody":              create("argoproj.io", "Rollout", template("argoproj.io/v1", "Rollout", "spec.template")),
		"a kind that the object has not":  create("", "Pod", strings.Replace(withBad("initContainers"), `"Pod"`, `"ConfigMap"`, 1)),
		"a kind that the request has not": strings.Replace(create("", "Pod", withBad("initContainers")), kind("", "Pod"), kind("", "ConfigMap"), 1),
		"another group":                   strings.Replace(create("", "Pod", withBad("initContainers")), kind("", "Pod"), kind("apps", "Pod"), 1),
		"no kind in the request":          strings.Replace(create("", "Pod", withBad("initContainers")), kind("", "Pod"), "", 1),
		"no kind in the object":           create("", "Pod", strings.Replace(withBad("initContainers"), `"apiVersion":"v1","kind":"Pod",`, "", 1)),
		"a kind in lower case":            create("", "Pod", strings.Replace(withBad("initContainers"), `"Pod"`, `"pod"`, 1)),
		"Spec":                            create("", "Pod", strings.Replace(withBad("initContainers"), `"spec"`, `"Spec"`, 1)),
		"InitContainers beside":           create("", "Pod", pod(`"containers":[`+bad+`],"Containers":[`+good+`]`)),
		"Image beside":                    create("", "Pod", pod(fmt.Sprintf(`"containers":[{"Image":%q,"image":%q}]`, signed, unsigned))),
		"containers twice":                create("", "Pod", pod(`"containers":[`+bad+`],`+one)),
		"no containers":                   create("", "Pod", pod(`"containers":null,"initContainers":[`+bad+`]`)),
		"a null among containers":         create("", "Pod", pod(`"containers":[`+good+`,null]`)),
		"containers as an object":         create("", "Pod", pod(one+`,"initContainers":{"0":`+bad+`}`)),
		"an image as a list":              create("", "Pod", pod(`"containers":[{"image":["a"]}]`)),
		"an image volume":                 create("", "Pod", pod(one+fmt.Sprintf(`,"volumes":[{"name":"v","image":{"reference":%q}}]`, unsigned))),
		"an image volume without one":     create("", "Pod", pod(one+`,"volumes":[{"name":"v","image":{}}]`)),
		"a null spec":                     create("", "Pod", `{"apiVersion":"v1","kind":"Pod","metadata":{},"spec":null}`),
		"a null object":                   create("", "Pod", `null`),
		"a List":                          create("", "List", `{"apiVersion":"v1","kind":"List","items":[`+withBad("initContainers")+`]}`),
		"a static Pod of nobody":          create("", "Pod", strings.Replace(withBad("initContainers"), `"name":"p"`, `"name":"p","annotations":{"kubernetes.io/config.mirror":"x"}`, 1)),
		"a static Pod of another node": create("", "Pod", `{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{"nodeName":"n1",`+one+`,"initContainers":[`+bad+`]}}`) +
			`,"userInfo":{"username":"system:node:n2","groups":["system:nodes"]}`,
		"a made-up token":         create("", "Pod", strings.Replace(withBad("initContainers"), `"name":"p"`, `"name":"p","annotations":{"gatehouse.dev/break-glass":"gbg_AAAAAAAAAAAAAAAAAAAAAAAAAA"}`, 1)),
		"one in a dry run":        create("", "Pod", strings.Replace(withBad("initContainers"), `"name":"p"`, `"name":"p","annotations":{"gatehouse.dev/break-glass":"gbg_AAAAAAAAAAAAAAAAAAAAAAAAAA"}`, 1)) + `,"dryRun":true`,
		"an operation of its own": strings.Replace(create("", "Pod", withBad("initContainers")), "CREATE", "create", 1),
	} {
		if a := r.askAbout("/validate", request); a.Allowed {
			t.Errorf("%s is admitted: %+v", name, a)
		}
	}
	// What these are made of is admitted without the image, and what is left alone with it.
	for name, request := range map[string]string{
		"a Pod": create("", "Pod", pod(one)), "an update of labels": update("", withBad("initContainers"), strings.Replace(withBad("initContainers"), `"name":"p"`, `"name":"p","labels":{"a":"b"}`, 1)),
		"one of its status": update("status", withBad("initContainers"), withBad("initContainers")),
		"a deletion":        `"uid":"u1","operation":"DELETE","namespace":"shop",` + kind("", "Pod") + `"object":null,"oldObject":` + withBad("initContainers"),
		"a shell in it":     `"uid":"u1","operation":"CONNECT","namespace":"shop","subResource":"exec",` + kind("", "PodExecOptions") + `"object":{"apiVersion":"v1","kind":"PodExecOptions","command":["sh"]}`,
	} {
		if a := r.askAbout("/validate", request); !a.Allowed {
			t.Errorf("%s is denied: %+v", name, a)
		}
	}
}

// TestBodiesThatAreNone are answered as such, within bounds, and the next one is judged.
func TestBodiesThatAreNone(t *testing.T) {
	r, signed, _ := lax(t)
	for name, tt := range map[string]struct {
		body string
		code int
	}{
		"too large":      {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1","x":"` + strings.Repeat("a", 9<<20) + `"}}`, 413},
		"deep":           {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":` + strings.Repeat(`{"a":`, 200_000) + `1` + strings.Repeat(`}`, 200_000) + `}`, 400},
		"a deep kind":    {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1","kind":{"x":` + strings.Repeat(`[`, 5000) + strings.Repeat(`]`, 5000) + `}}}`, 400},
		"no UTF-8":       {"{\"apiVersion\":\"admission.k8s.io/v1\xff\"}", 400},
		"nothing":        {"", 400},
		"half of one":    {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1"`, 400},
		"another kind":   {`{"apiVersion":"admission.k8s.io/v1","kind":"Pod"}`, 400},
		"an old version": {`{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"u1"}}`, 400},
	} {
		for _, path := range []string{"/validate", "/mutate"} {
			res, err := r.https.Post(r.webhook+path, "application/json", strings.NewReader(tt.body))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			answer, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != tt.code || !strings.Contains(string(answer), `"Failure"`) || strings.Contains(string(answer), `"allowed":true`) {
				t.Errorf("%s: %d %s %v", name, res.StatusCode, answer, err)
			}
		}
	}
	if res, err := r.https.Get(r.webhook + "/validate"); err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v %v", res, err)
	}
	if allowed, message := r.review(signed); !allowed {
		t.Errorf("afterwards: %s", message)
	}
}
