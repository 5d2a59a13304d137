package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

const immutablePath = "/api/v1/projects/team/immutable-tags"

// TestImmutableTagsNeedNoDigest: a signed image is admitted by a tag that is immutable
// in this registry, and only by such a one.
func TestImmutableTagsNeedNoDigest(t *testing.T) {
	onBoth(t, func(t *testing.T, r *running) {
		k := signer(t)
		r.must("PUT", "/api/v1/policies/signed.yaml", signedBy("signed", "registry.example/**", k))
		digest := r.push("team/app:v1")
		r.signImage(k, "team/app", digest, sign.Options{})
		other := r.push("team/app:latest")
		r.signImage(k, "team/app", other, sign.Options{})
		r.push("team/app:v2") // not signed
		want := func(tag string, allowed bool, text string) {
			t.Helper()
			if a := r.ask("/validate", "registry.example/team/app:"+tag); a.Allowed != allowed || !strings.Contains(a.Status.Message, text) {
				t.Errorf("%s: %+v", tag, a)
			}
		}
		want("v1", false, "tag-not-pinned")
		r.must("PUT", immutablePath, `{"tags":["v*"]}`)
		want("v1", true, "")
		want("latest", false, "tag-not-pinned")
		want("v2", false, "signature-missing")
		// What a node finds there need not be this server. It is the tag that is refused.
		r.must("PUT", "/api/v1/policies/signed.yaml", signedBy("signed", "**", k))
		local := strings.TrimPrefix(r.url, "http://")
		for _, name := range []string{local, "registry.example:80", "registry.example:443"} {
			if a := r.ask("/validate", name+"/team/app@"+digest); !a.Allowed {
				t.Errorf("%s by digest: %+v", name, a)
			}
			if a := r.ask("/validate", name+"/team/app:v1"); a.Allowed || !strings.Contains(a.Status.Message, "tag-not-pinned") {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if a := r.ask("/validate", "Registry.Example/team/app:v1"); !a.Allowed {
			t.Errorf("another case: %+v", a)
		}
		if got := r.pin("registry.example/team/app:v1"); got != "registry.example/team/app:v1@"+digest {
			t.Errorf("not pinned where it can be: %s", got)
		}
		// Other doors decide alike, and it is explained.
		answer := r.reviewImage("shop", "registry.example/team/app:v1")
		_, id, _ := strings.Cut(answer, `"decision":"`)
		if !strings.Contains(answer, `"allowed":true`) || len(id) < 20 {
			t.Fatal(answer)
		}
		r.eventually("the decision", func() bool {
			code, answer := r.call("GET", "/api/v1/decisions/"+id[:20], "")
			return code == http.StatusOK && strings.Contains(answer, `"tag-immutable"`)
		})
		for path, status := range map[string]int{
			"/v2/team/app/manifests/v1":                412,
			"/v2/team/app/manifests/" + digest:         412,
			"/api/v1/repositories/team/app/tags/v1":    409,
			"/api/v1/repositories/team/app/tags/v2":    409,
			"/api/v1/repositories/team/app/tags/none1": 404,
		} {
			if code, answer := r.call("DELETE", path, ""); code != status {
				t.Errorf("%s: %d %s", path, code, answer)
			}
		}
		r.must("PUT", immutablePath, `{"tags":[]}`)
		want("v1", false, "tag-not-pinned")
	})
}

// TestImmutableTagsSetting: who may set it, what is refused, and where it is told.
func TestImmutableTagsSetting(t *testing.T) {
	onBoth(t, func(t *testing.T, r *running) {
		for body, says := range map[string]string{
			`{"tags":["v["]}`:               "no pattern of tags",
			`{"tags":["{v1,v2}"]}`:          "name alternatives one by one",
			`{"tags":"v*"}`:                 "not what is expected",
			`{"tag":["v*"]}`:                "tag",
			`{}`:                            "tags is missing",
			`{"tags":["v*"],"mode":"warn"}`: "mode",
		} {
			if code, answer := r.call("PUT", immutablePath, body); code != http.StatusBadRequest || !strings.Contains(answer, says) {
				t.Errorf("%s: %d %s", body, code, answer)
			}
		}
		if code, _ := r.call("PUT", "/api/v1/projects/team%2Fapp/immutable-tags", `{"tags":[]}`); code != http.StatusBadRequest {
			t.Errorf("of a repository: %d", code)
		}
		if code := r.byNobody("PUT", immutablePath, `{"tags":[]}`); code != http.StatusUnauthorized {
			t.Errorf("without a name: %d", code)
		}
		type tags struct {
			Project, UpdatedBy string
			Tags               []string
		}
		var got tags
		if r.get(immutablePath, &got); got.Tags == nil || len(got.Tags) != 0 {
			t.Errorf("not set: %+v", got)
		}
		r.must("PUT", immutablePath, `{"tags":["v*","release-?","v*"]}`)
		if r.get(immutablePath, &got); strings.Join(got.Tags, " ") != "release-? v*" || got.UpdatedBy != "admin" || got.Project != "team" {
			t.Errorf("%+v", got)
		}
		// Projects that are set to one thing or the other, in one list, by pages.
		r.must("PUT", "/api/v1/projects/dev/pull-policy", `{"mode":"off"}`)
		r.must("PUT", "/api/v1/projects/zoo/pull-policy", `{"mode":"off"}`)
		r.must("PUT", "/api/v1/projects/team/pull-policy", `{"mode":"off"}`)
		var names []string
		for after, more := "", true; more && len(names) < 10; {
			var page struct {
				Projects []struct {
					Name          string
					ImmutableTags tags
				}
				Next string
			}
			r.get("/api/v1/projects?n=1&after="+after, &page)
			for _, p := range page.Projects {
				names = append(names, p.Name+" "+strings.Join(p.ImmutableTags.Tags, ","))
			}
			after, more = page.Next, page.Next != ""
		}
		if got := strings.Join(names, "; "); got != "dev ; team release-?,v*; zoo " {
			t.Errorf("listed: %s", got)
		}
		if events := r.must("GET", "/api/v1/events?n=1000", ""); !strings.Contains(events, `"project.changed"`) || !strings.Contains(events, "immutableTags") {
			t.Errorf("%s", events)
		}
	})
}
