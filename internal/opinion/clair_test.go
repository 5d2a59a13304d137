package opinion_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/opinion"
)

// These tests speak to a stand-in: Clair itself is not to be had as a module or a
// package here. It is written from httptransport/api/v1/openapi.yaml of
// quay/clair, whose examples the documents follow.

const clairReport = `{"manifest_hash":"` + string(digest) + `",
	"packages":{"10":{"id":"10","name":"libc6","version":"2.27","kind":"binary","arch":"x86","source":{"id":"9","name":"glibc","version":"2.27","kind":"source","source":null}},
		"11":{"id":"11","name":"log4j","version":"2","source":null}},
	"distributions":{"1":{"id":"1","did":"ubuntu"}},"repository":{},
	"environments":{"10":[{"package_db":"var/lib/dpkg/status","distribution_id":"1"}]},
	"vulnerabilities":{
		"356835":{"id":"356835","updater":"ubuntu","name":"CVE-2009-5155 on Ubuntu 18.04 LTS (bionic) - low.","links":"https://cve.mitre.org/?name=CVE-2009-5155 x","severity":"Low","normalized_severity":"Low","fixed_in_version":"2.28-0ubuntu1"},
		"2":{"id":"2","updater":"rhel","name":"RHSA-2021:1234: log4j security update (Critical)","links":"https://a/CVE-2021-44228 https://a/CVE-2021-45046","normalized_severity":"Critical"},
		"3":{"id":"3","updater":"x","name":"unnamed flaw","normalized_severity":"Sometimes"}},
	"package_vulnerabilities":{"10":["356835"],"11":["2","3"]},"enrichments":{}}`

// clairJWT checks a token as Clair's pre-shared key scheme does.
func clairJWT(t *testing.T, r *http.Request, key []byte) {
	t.Helper()
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	if len(parts) != 3 {
		t.Fatalf("Authorization %q", r.Header.Get("Authorization"))
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	if sum, err := base64.RawURLEncoding.DecodeString(parts[2]); err != nil || !hmac.Equal(sum, mac.Sum(nil)) {
		t.Error("the token is not signed by the key")
	}
	var head struct{ Alg string }
	var claims struct {
		Iss           string
		Iat, Nbf, Exp int64
	}
	for i, into := range []any{&head, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(b, into) != nil {
			t.Fatalf("part %d: %v %s", i, err, b)
		}
	}
	now := time.Now().Unix()
	if head.Alg != "HS256" || claims.Iss != "gatehouse" || claims.Nbf > now || claims.Iat > now || claims.Exp <= now || claims.Exp > now+600 {
		t.Errorf("%+v %+v", head, claims)
	}
}

// clairManifest checks the body of an index request: the schema has no other
// fields than these.
func clairManifest(t *testing.T, r *http.Request) {
	t.Helper()
	type layer struct {
		Hash    string              `json:"hash"`
		URI     string              `json:"uri"`
		Headers map[string][]string `json:"headers"`
	}
	var doc struct {
		Hash   string  `json:"hash"`
		Layers []layer `json:"layers"`
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		t.Error(err)
	}
	var want []layer
	for _, d := range image.Layers {
		want = append(want, layer{string(d), "https://registry.example/v2/team/app/blobs/" + string(d), map[string][]string{"Authorization": {image.Authorization}}})
	}
	if diff := cmp.Diff(want, doc.Layers); diff != "" || doc.Hash != string(digest) {
		t.Errorf("%s\n%s", doc.Hash, diff)
	}
	if got := r.Header.Get("Content-Type"); got != "application/vnd.clair.manifest.v1+json" {
		t.Errorf("Content-Type %q", got)
	}
}

func indexReport(state, err string, success bool) string {
	b, _ := json.Marshal(map[string]any{"manifest_hash": digest, "state": state, "err": err, "success": success, "packages": map[string]any{}})
	return string(b)
}

func TestClair(t *testing.T) {
	key := []byte("a key of thirty-two bytes or so.")
	polls := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /base/indexer/api/v1/index_report", func(w http.ResponseWriter, r *http.Request) {
		clairJWT(t, r, key)
		clairManifest(t, r)
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, indexReport("ScanLayers", "", false))
	})
	mux.HandleFunc("GET /base/indexer/api/v1/index_report/{digest}", func(w http.ResponseWriter, r *http.Request) {
		clairJWT(t, r, key)
		switch polls++; polls {
		case 1:
			w.WriteHeader(http.StatusNotFound)
		case 2:
			io.WriteString(w, indexReport("IndexManifest", "", false))
		default:
			io.WriteString(w, indexReport("IndexFinished", "", true))
		}
	})
	mux.HandleFunc("GET /base/matcher/api/v1/vulnerability_report/{digest}", func(w http.ResponseWriter, r *http.Request) {
		clairJWT(t, r, key)
		if r.PathValue("digest") != string(digest) || polls != 3 {
			t.Errorf("asked for %s after %d looks", r.PathValue("digest"), polls)
		}
		io.WriteString(w, clairReport)
	})
	s, waits := scanner(t, "clair", base64.StdEncoding.EncodeToString(key), mux)
	got, err := s.Ask(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	want := opinion.Opinion{Scanner: "Clair", Findings: []opinion.Finding{
		{ID: "CVE-2009-5155", Package: "libc6", Source: "glibc", Version: "2.27", FixedVersion: "2.28-0ubuntu1", Severity: gatehouse.SeverityLow},
		{ID: "RHSA-2021:1234", Aliases: []string{"CVE-2021-44228", "CVE-2021-45046"}, Package: "log4j", Version: "2", Severity: gatehouse.SeverityCritical},
		{ID: "unnamed flaw", Package: "log4j", Version: "2"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(*waits) != 3 {
		t.Errorf("pauses %v", *waits)
	}
}

// TestClairThatFails: what Clair or a proxy before it can answer.
func TestClairThatFails(t *testing.T) {
	fine := indexReport("IndexFinished", "", true)
	for name, test := range map[string]struct {
		post, get, report int
		index, later, doc string
		code              gatehouse.Code
		says              string
	}{
		"cannot fetch a layer":  {201, 200, 200, indexReport("IndexError", "failed to fetch layers", false), fine, clairReport, gatehouse.CodeUnavailable, "failed to fetch"},
		"refuses the manifest":  {400, 200, 200, `{"code":"bad-request","message":"no such layer"}`, fine, clairReport, gatehouse.CodeUnavailable, "no such layer"},
		"refuses us":            {401, 200, 200, ``, fine, clairReport, gatehouse.CodeDenied, "401"},
		"fails later":           {504, 200, 200, ``, indexReport("IndexError", "late", false), clairReport, gatehouse.CodeUnavailable, "late"},
		"breaks later":          {504, 500, 200, ``, `{"message":"oops"}`, clairReport, gatehouse.CodeUnavailable, "oops"},
		"indexes another":       {201, 200, 200, strings.Replace(fine, "6c3c", "0000", 1), fine, clairReport, gatehouse.CodeInvalid, "about"},
		"says no JSON":          {201, 200, 200, `<`, fine, clairReport, gatehouse.CodeInvalid, "index report"},
		"has no report":         {201, 200, 404, fine, fine, ``, gatehouse.CodeUnavailable, "404"},
		"reports about another": {201, 200, 200, fine, fine, strings.Replace(clairReport, "6c3c", "0000", 1), gatehouse.CodeInvalid, "about"},
		"lists half":            {201, 200, 200, fine, fine, strings.Replace(clairReport, `"11":["2"`, `"12":["2"`, 1), gatehouse.CodeInvalid, "not listed"},
		"names what is not":     {201, 200, 200, fine, fine, strings.Replace(clairReport, `["2","3"]`, `["4"]`, 1), gatehouse.CodeInvalid, "not listed"},
		"reports something":     {201, 200, 200, fine, fine, `{"manifest_hash":"` + string(digest) + `"}`, gatehouse.CodeInvalid, "no vulnerabilities"},
	} {
		s, _ := scanner(t, "clair", "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPost:
				w.WriteHeader(test.post)
				io.WriteString(w, test.index)
			case strings.Contains(r.URL.Path, "/indexer/"):
				w.WriteHeader(test.get)
				io.WriteString(w, test.later)
			default:
				w.WriteHeader(test.report)
				io.WriteString(w, test.doc)
			}
		}))
		if _, err := s.Ask(t.Context(), image); gatehouse.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseClair(f *testing.F) {
	f.Add([]byte(clairReport))
	f.Add([]byte(`{"manifest_hash":"` + string(digest) + `","packages":null,"vulnerabilities":{},"package_vulnerabilities":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := opinion.ParseClair(b, digest)
		held(t, o, err)
	})
}

func FuzzClairIndex(f *testing.F) {
	f.Add([]byte(indexReport("IndexFinished", "", true)))
	f.Add([]byte(indexReport("IndexError", "x", false)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if done, err := opinion.Indexed(b, digest); done && err != nil {
			t.Error("finished and failed")
		}
	})
}
