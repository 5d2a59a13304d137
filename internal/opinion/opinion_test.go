package opinion_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/adapter/adaptertest"
	"github.com/gatehouse-dev/gatehouse/internal/opinion"
)

const digest = gatehouse.Digest("sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b")

var image = opinion.Image{
	Registry: "https://registry.example", Repo: "team/app", Digest: digest, MediaType: adaptertest.OCIManifest,
	Layers: []gatehouse.Digest{gatehouse.DigestOf([]byte("one")), gatehouse.DigestOf([]byte("two"))}, Authorization: "Basic eDp5",
}

// scanner is a client of h; waits collects its pauses.
func scanner(t *testing.T, kind, token string, h http.Handler) (s *opinion.Scanner, waits *[]time.Duration) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	waits = &[]time.Duration{}
	s, err := opinion.New(opinion.Options{Source: kind + "+" + srv.URL + "/base/", Token: token, Client: srv.Client(),
		Wait: func(ctx context.Context, d time.Duration) error {
			*waits = append(*waits, d)
			return ctx.Err()
		}})
	if err != nil {
		t.Fatal(err)
	}
	return s, waits
}

func TestSources(t *testing.T) {
	for source, want := range map[string]string{
		"harbor+https://scanner.example/": "harbor+https://scanner.example", "clair+http://clair:6060/x/": "clair+http://clair:6060/x",
	} {
		s, err := opinion.New(opinion.Options{Source: source, Client: http.DefaultClient})
		if err != nil || s.Name() != want {
			t.Errorf("%s: %v %v", source, s, err)
		}
	}
	for _, source := range []string{"", "https://x", "trivy+https://x", "harbor+ftp://x", "harbor+https://", "harbor+https://u:hunter2@x", "clair+https://x?a=b", "harbor"} {
		_, err := opinion.New(opinion.Options{Source: source, Client: http.DefaultClient})
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", source, err)
		}
	}
	if _, err := opinion.New(opinion.Options{Source: "clair+https://x", Token: "not base64!", Client: http.DefaultClient}); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || strings.Contains(err.Error(), "base64!") {
		t.Errorf("a key that is none: %v", err)
	}
}

const harborReport = `{"generated_at":"2026-01-02T03:04:05.6Z","artifact":{"repository":"team/app","digest":"` + string(digest) + `"},
	"scanner":{"name":"Trivy","vendor":"Aqua Security","version":"v0.69.1"},"severity":"High","vulnerabilities":[
	{"id":"CVE-1","package":"dpkg","version":"1.0","fix_version":"1.1","severity":"High","links":null},
	{"id":"CVE-2","package":"a\u0007b","version":"2","severity":"Weird","vendor_attributes":{"x":[1]}}]}`

// TestHarborAdapter: an adapter that is not ready at first, as all are.
func TestHarborAdapter(t *testing.T) {
	polls := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /base/api/v1/scan", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		adaptertest.CheckRequest(t, body)
		var doc struct {
			Registry struct{ URL, Authorization string }
			Artifact struct{ Repository, Digest string }
		}
		if err := json.Unmarshal(body, &doc); err != nil || doc.Registry.URL != image.Registry || doc.Registry.Authorization != image.Authorization ||
			doc.Artifact.Repository != "team/app" || doc.Artifact.Digest != string(digest) || r.Header.Get("Content-Type") != adaptertest.Request11 {
			t.Errorf("%v: %s %v", err, body, r.Header)
		}
		if user, password, _ := r.BasicAuth(); user != "robot" || password != "pass:word" {
			t.Errorf("credentials %q %q", user, password)
		}
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{"id":"a/b?c"}`)
	})
	mux.HandleFunc("GET /base/api/v1/scan/{id}/report", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "a/b?c" {
			t.Errorf("id %q", r.PathValue("id"))
		}
		polls++
		switch {
		case polls == 1:
			w.WriteHeader(http.StatusNotFound + 2) // 406: an adapter of version 1.0
		case r.Header.Get("Accept") != adaptertest.ReportOld:
			t.Errorf("Accept %q", r.Header.Get("Accept"))
		case polls == 2:
			w.Header().Set("Refresh-After", "7")
			w.Header().Set("Location", "http://169.254.169.254/") // not followed
			w.WriteHeader(http.StatusFound)
		case polls == 3:
			w.Header().Set("Refresh-After", "99999999")
			w.WriteHeader(http.StatusFound)
		case polls == 4:
			w.WriteHeader(http.StatusFound)
		default:
			io.WriteString(w, harborReport)
		}
	})
	s, waits := scanner(t, "harbor", "robot:pass:word", mux)
	got, err := s.Ask(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	want := opinion.Opinion{Scanner: "Trivy", Version: "v0.69.1", GeneratedAt: time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC), Findings: []opinion.Finding{
		{ID: "CVE-1", Package: "dpkg", Version: "1.0", FixedVersion: "1.1", Severity: gatehouse.SeverityHigh},
		{ID: "CVE-2", Package: "ab", Version: "2"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]time.Duration{7 * time.Second, time.Minute, 5 * time.Second}, *waits); diff != "" {
		t.Errorf("pauses:\n%s", diff)
	}
}

func TestHarborAdapterThatGivesNoReport(t *testing.T) {
	for name, test := range map[string]struct {
		scan, report int
		answer, body string
		code         gatehouse.Code
		says         string
	}{
		"refuses us":            {401, 0, `{"error":{"message":"who are you"}}`, "", gatehouse.CodeDenied, "who are you"},
		"refuses the scan":      {422, 0, `{"error":{"message":"no such\nregistry"}}`, "", gatehouse.CodeUnavailable, "no suchregistry"},
		"has no id":             {202, 0, `{"id":""}`, "", gatehouse.CodeInvalid, "id"},
		"says no JSON":          {202, 0, `<html>`, "", gatehouse.CodeInvalid, "id"},
		"fails":                 {202, 500, `{"id":"1"}`, `{"error":{"message":"disk full"}}`, gatehouse.CodeUnavailable, "disk full"},
		"forgets":               {202, 404, `{"id":"1"}`, ``, gatehouse.CodeUnavailable, "404"},
		"reports no JSON":       {202, 200, `{"id":"1"}`, `<html>`, gatehouse.CodeInvalid, "not a report"},
		"reports about another": {202, 200, `{"id":"1"}`, strings.Replace(harborReport, "6c3c", "0000", 1), gatehouse.CodeInvalid, "about"},
		"lists nothing":         {202, 200, `{"id":"1"}`, `{"artifact":{"digest":"` + string(digest) + `"}}`, gatehouse.CodeInvalid, "not even none"},
		"reports no id":         {202, 200, `{"id":"1"}`, strings.Replace(harborReport, "CVE-2", "", 1), gatehouse.CodeInvalid, "no id"},
		"knows neither report":  {202, 501, `{"id":"1"}`, ``, gatehouse.CodeUnavailable, "501"},
	} {
		s, _ := scanner(t, "harbor", "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				w.WriteHeader(test.scan)
				io.WriteString(w, test.answer)
				return
			}
			w.WriteHeader(test.report)
			io.WriteString(w, test.body)
		}))
		if _, err := s.Ask(t.Context(), image); gatehouse.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	s, err := opinion.New(opinion.Options{Source: "harbor+" + gone.URL, Client: http.DefaultClient})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ask(t.Context(), image); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("one that is away: %v", err)
	}
}

// TestRedirectsAreNotFollowed: whoever answers cannot send us, and what opens the
// registry and the scanner, to somebody else.
func TestRedirectsAreNotFollowed(t *testing.T) {
	visited := make(chan string, 100)
	inside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { visited <- r.URL.Path }))
	t.Cleanup(inside.Close)
	for _, kind := range []string{"harbor", "clair"} {
		for _, status := range []int{301, 303, 307, 308} {
			s, _ := scanner(t, kind, "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, inside.URL+r.URL.Path, status)
			}))
			if _, err := s.Ask(t.Context(), image); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
				t.Errorf("%s, %d: %v", kind, status, err)
			}
		}
	}
	if len(visited) > 0 {
		t.Errorf("the other host got a request for %s", <-visited)
	}
}

// TestAnswersAreBounded: an answer without end, and one with too many entries.
func TestAnswersAreBounded(t *testing.T) {
	endless, _ := scanner(t, "harbor", "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		b := make([]byte, 1<<20)
		for r.Context().Err() == nil {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}))
	if _, err := endless.Ask(t.Context(), image); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("endless: %v", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{"artifact":{"digest":%q},"vulnerabilities":[`, digest)
	for i := range opinion.FindingsMax + 1 {
		fmt.Fprintf(&b, `%s{"id":"CVE-%d","package":"a"}`, []string{",", ""}[1-min(i, 1)], i)
	}
	b.WriteString(`]}`)
	if _, err := opinion.ParseHarbor([]byte(b.String()), digest); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("too many: %v", err)
	}
}

func TestCompare(t *testing.T) {
	ours := func(id, name, source string, aliases ...string) gatehouse.Finding {
		return gatehouse.Finding{ID: id, Aliases: aliases, Kind: gatehouse.KindVulnerability, Severity: gatehouse.SeverityLow,
			Package: gatehouse.Package{Type: "deb", Name: name, Source: source, Version: "1"}}
	}
	secret := gatehouse.Finding{ID: "aws", Kind: gatehouse.KindSecret}
	accepted := ours("CVE-3", "c", "")
	accepted.Suppressed = &gatehouse.Suppression{By: gatehouse.SuppressedByException}
	maven := ours("CVE-9", "org.x:lib", "")
	maven.Package.Type = "maven"
	list := []gatehouse.Finding{
		ours("CVE-1", "libssl3", "openssl"), ours("CVE-2", "b", "", "GHSA-x"), accepted, ours("CVE-4", "d", ""), ours("CVE-5", "e", ""), ours("CVE-6", "e", ""), secret, maven,
	}
	theirs := []opinion.Finding{
		{ID: "cve-1", Package: "OpenSSL", Severity: gatehouse.SeverityHigh},            // by the source's name
		{ID: "GHSA-X", Package: "b"},                                                   // by an alias
		{ID: "CVE-3", Package: "c"},                                                    // accepted here
		{ID: "CVE-4", Package: "other", Version: "7"},                                  // another package
		{ID: "RHSA-1", Aliases: []string{"CVE-5", "CVE-6"}, Package: "x", Source: "e"}, // two of ours in one
		{ID: "CVE-9", Package: "lib"},
	}
	got := opinion.Compare(list, theirs)
	ids := func(list []opinion.Match) (out []string) {
		for _, m := range list {
			out = append(out, m.ID+" "+m.Package+" "+m.Ours+"/"+m.Theirs)
		}
		return out
	}
	want := []string{"CVE-1 libssl3 LOW/HIGH", "CVE-2 b LOW/UNKNOWN", "CVE-3 c LOW/UNKNOWN", "CVE-5 e LOW/UNKNOWN", "CVE-6 e LOW/UNKNOWN", "CVE-9 org.x:lib LOW/UNKNOWN"}
	if diff := cmp.Diff(want, ids(got.Both)); diff != "" {
		t.Errorf("both:\n%s", diff)
	}
	if !got.Both[2].Suppressed || got.Both[0].Suppressed {
		t.Error("what is accepted is not marked, or what is not is")
	}
	if diff := cmp.Diff([]string{"CVE-4 d LOW/"}, ids(got.OnlyOurs)); diff != "" {
		t.Errorf("only ours:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"CVE-4 other /UNKNOWN"}, ids(got.OnlyTheirs)); diff != "" {
		t.Errorf("only theirs:\n%s", diff)
	}
}

func FuzzParseHarbor(f *testing.F) {
	f.Add([]byte(harborReport))
	f.Add([]byte(`{"artifact":{"digest":"` + string(digest) + `"},"vulnerabilities":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := opinion.ParseHarbor(b, digest)
		held(t, o, err)
	})
}

// held checks what every parser of foreign answers promises.
func held(t *testing.T, o opinion.Opinion, err error) {
	if err != nil {
		if code := gatehouse.CodeOf(err); code != gatehouse.CodeInvalid && code != gatehouse.CodeTooLarge {
			t.Errorf("%v", err)
		}
		return
	}
	if len(o.Findings) > opinion.FindingsMax {
		t.Errorf("%d findings", len(o.Findings))
	}
	for _, f := range o.Findings {
		if f.ID == "" || f.Package == "" || len(f.ID) > 512 || len(f.Aliases) > 50 || strings.ContainsAny(f.ID+f.Package+f.Version, "\n\x1b") {
			t.Errorf("%+v", f)
		}
	}
	c := opinion.Compare(nil, o.Findings)
	if len(c.OnlyTheirs) != len(o.Findings) {
		t.Error("a finding is lost in the comparison")
	}
}
