package server_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/malware/clamdtest"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

// tarLayer is a layer of files, by name.
func tarLayer(t *testing.T, files ...string) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o755, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, files[i+1])
	}
	w.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// get reads a JSON answer.
func (r *running) get(path string, into any) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.must("GET", path, "")), into); err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
}

type findingsAnswer struct {
	Indexed, Complete bool
	Summary           struct{ Critical, High, Unknown int }
	Kinds             map[string]struct {
		Critical, Unknown int
		Complete          bool
		IncompleteReasons []string
	}
	Layers   []gatehouse.LayerOrigin
	Findings []struct {
		ID, Kind  string
		FirstSeen time.Time
		Package   struct{ Name, Path string }
	}
	Next int
}

// TestFindingsOfAnImage asks everything that there is to ask about an image, of a
// server with a real clamd.
func TestFindingsOfAnImage(t *testing.T) {
	d := clamdtest.Start(t, clamdtest.Options{Files: map[string]string{"a.ndb": clamdtest.Signature("Test.Eicar", clamdtest.EICAR())}})
	r := start(t, t.TempDir(), func(c *config.Config) { c.Clamd = d.Unix })
	base := tarLayer(t, "etc/motd", "hello", "bin/tool", "#!/bin/sh\necho tool\n")
	below := r.pushImage("base/image:1", imageOf(t, base))
	app := r.pushImage("team/app:1", imageOf(t, base, tarLayer(t,
		"app/node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`, "bin/evil", clamdtest.EICAR())))
	other := r.pushImage("team/other:1", imageOf(t, base, tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`, "x", "y")))
	path := "/api/v1/images/" + app
	var f findingsAnswer
	r.eventually("the index and clamd", func() bool {
		f = findingsAnswer{}
		r.get(path+"/findings", &f)
		return f.Indexed && f.Kinds["malware"].Complete == f.Complete && len(f.Kinds["malware"].IncompleteReasons) == 0
	})
	// The advisory below finds all three at once, so that one event tells of both.
	for _, digest := range []string{below, other} {
		r.eventually("the index of "+digest, func() bool {
			var f findingsAnswer
			r.get("/api/v1/images/"+digest+"/findings", &f)
			return f.Indexed
		})
	}
	if f.Kinds["malware"].Critical != 1 {
		t.Errorf("malware %+v", f.Kinds["malware"])
	}
	r.must("POST", "/api/v1/advisories?name=x", record) // CVE-1, of any severity that is not known
	f = findingsAnswer{}
	r.get(path+"/findings?kind=vulnerability", &f)
	if len(f.Findings) != 1 || f.Findings[0].ID != "CVE-1" || f.Findings[0].Package.Name != "a" || f.Summary.Unknown != 1 || f.Findings[0].FirstSeen.IsZero() {
		t.Errorf("vulnerabilities %+v", f.Findings)
	}
	if len(f.Layers) != 2 || !f.Layers[0].Base || f.Layers[1].Base {
		t.Errorf("layers %+v", f.Layers)
	}
	// Pages together are the whole list.
	var whole, paged []string
	f = findingsAnswer{}
	r.get(path+"/findings", &f)
	for _, x := range f.Findings {
		whole = append(whole, x.Kind+x.ID+x.Package.Path)
	}
	for after := 0; ; {
		f = findingsAnswer{}
		r.get(fmt.Sprintf("%s/findings?n=2&after=%d", path, after), &f)
		for _, x := range f.Findings {
			paged = append(paged, x.Kind+x.ID+x.Package.Path)
		}
		if after = f.Next; after == 0 {
			break
		}
	}
	if diff := cmp.Diff(whole, paged); diff != "" || len(whole) < 3 {
		t.Errorf("pages of %d findings:\n%s", len(whole), diff)
	}

	var bases struct {
		BaseLayers int
		Images     []struct {
			Digest       string
			Repositories []string
		}
	}
	r.get(path+"/base", &bases)
	if bases.BaseLayers != 1 || len(bases.Images) != 1 || bases.Images[0].Digest != below || !cmp.Equal(bases.Images[0].Repositories, []string{"base/image"}) {
		t.Errorf("base %+v", bases)
	}
	r.affected(t, app, other)
	r.historyOf(t, path)
	r.lists(t, path)
}

// affected asks which images a flaw is in.
func (r *running) affected(t *testing.T, app, other string) {
	t.Helper()
	type list struct {
		Images []struct {
			Digest       string
			Repositories []string
		}
		Next int64
	}
	ask := func(query string) (out []string) {
		t.Helper()
		for after := int64(0); ; {
			var l list
			r.get(fmt.Sprintf("/api/v1/images?%s&n=1&after=%d", query, after), &l)
			for _, i := range l.Images {
				out = append(out, i.Digest+" "+strings.Join(i.Repositories, ","))
			}
			if after = l.Next; after == 0 {
				return out
			}
		}
	}
	want := []string{app + " team/app", other + " team/other"}
	if got := ask("vulnerability=CVE-1"); !sameSet(want, got) {
		t.Errorf("images with CVE-1: %v", got)
	}
	if got := ask("vulnerability=CVE-2"); len(got) != 0 {
		t.Errorf("images with CVE-2: %v", got)
	}
	var events struct {
		Events []struct {
			Seq          int64
			Type, Images string
		}
		Next int64
	}
	found := ""
	for after := int64(0); ; after = events.Next {
		events.Events = nil
		r.get(fmt.Sprintf("/api/v1/events?n=3&after=%d", after), &events)
		for _, e := range events.Events {
			if e.Type == "vulnerability.new" {
				found += e.Images
			}
		}
		if events.Next == after {
			break
		}
	}
	_, query, ok := strings.Cut(found, "/api/v1/images?")
	if !ok || !sameSet(want, ask(query)) {
		t.Errorf("the event leads to %q", found)
	}
	for _, bad := range []string{"", "vulnerability=", "vulnerability=a&event=1", "event=-1", "event=x", "layer=x", "event=999999", "event=1"} {
		if code, answer := r.call("GET", "/api/v1/images?"+bad, ""); code < 400 || code >= 500 {
			t.Errorf("%s: %d %s", bad, code, answer)
		}
	}
}

func sameSet(a, b []string) bool {
	in := map[string]int{}
	for _, s := range a {
		in[s]++
	}
	for _, s := range b {
		in[s]--
	}
	for _, n := range in {
		if n != 0 {
			return false
		}
	}
	return true
}

// historyOf has the flaw corrected and asks what was known when.
func (r *running) historyOf(t *testing.T, path string) {
	t.Helper()
	type episodes struct {
		IndexedAt time.Time
		Findings  []struct {
			ID, Kind          string
			FirstSeen, GoneAt time.Time
		}
	}
	cve := func(query string) (since, gone time.Time, ok bool) {
		t.Helper()
		var e episodes
		r.get(path+"/history"+query, &e)
		for _, f := range e.Findings {
			if f.FirstSeen.Before(e.IndexedAt) {
				t.Errorf("%s was seen on the image at %s, before it came at %s", f.ID, f.FirstSeen, e.IndexedAt)
			}
			if f.ID == "CVE-1" {
				since, gone, ok = f.FirstSeen, f.GoneAt, true
			}
		}
		return since, gone, ok
	}
	since, gone, ok := cve("")
	if !ok || !gone.IsZero() {
		t.Errorf("history: since %s, gone %s, %v", since, gone, ok)
	}
	r.must("POST", "/api/v1/advisories?name=x", strings.ReplaceAll(record, `{"introduced":"0"}`, `{"introduced":"0"},{"fixed":"0.9"}`))
	again, gone, ok := cve("")
	if !ok || !again.Equal(since) || !gone.After(since) {
		t.Errorf("after the correction: since %s, gone %s, %v", again, gone, ok)
	}
	for at, want := range map[time.Time]bool{since.Add(-time.Minute): false, since.Add(time.Second): gone.After(since.Add(time.Second)), gone.Add(time.Minute): false} {
		if _, _, known := cve("?at=" + at.Add(time.Second-time.Nanosecond).UTC().Format(time.RFC3339)); known && !want {
			t.Errorf("at %s (since %s, gone %s) it was known", at, since, gone)
		}
	}
	if code, _ := r.call("GET", path+"/history?at=yesterday", ""); code != 400 {
		t.Errorf("a time that is none: %d", code)
	}
}

// lists puts a list of malware, which judges what is stored.
func (r *running) lists(t *testing.T, path string) {
	t.Helper()
	tool := gatehouse.DigestOf([]byte("#!/bin/sh\necho tool\n"))
	r.must("PUT", "/api/v1/malware/lists/mine", tool.Hex()+" Tool.Bad\n")
	var f findingsAnswer
	r.get(path+"/findings?kind=malware", &f)
	names := ""
	for _, x := range f.Findings {
		names += x.ID + " " + x.Package.Path + "; "
	}
	if names != "Test.Eicar.UNOFFICIAL bin/evil; Tool.Bad bin/tool; " {
		t.Errorf("with the list: %s", names)
	}
	if l := r.must("GET", "/api/v1/malware/lists", ""); !strings.Contains(l, `"mine"`) || !strings.Contains(l, `"entries": 1`) {
		t.Errorf("lists: %s", l)
	}
	if code, answer := r.call("PUT", "/api/v1/malware/lists/broken", "nonsense"); code != 400 || !strings.Contains(answer, "line 1") {
		t.Errorf("a broken list: %d %s", code, answer)
	}
	r.acceptedStaysVisible(t, path)
	r.must("DELETE", "/api/v1/malware/lists/mine", "")
	if code, _ := r.call("DELETE", "/api/v1/malware/lists/mine", ""); code != 404 {
		t.Errorf("deleted twice: %d", code)
	}
}

// acceptedStaysVisible: the event of malware leads to its images, and what an
// exception accepts is listed with the cause and counts no more.
func (r *running) acceptedStaysVisible(t *testing.T, path string) {
	t.Helper()
	digest := strings.TrimPrefix(path, "/api/v1/images/")
	var events struct {
		Events []struct {
			Type, Images string
			Payload      struct{ Malware string }
		}
	}
	r.get("/api/v1/events?n=1000", &events)
	found := 0
	for _, e := range events.Events {
		if e.Type != "malware.found" {
			continue
		}
		found++
		if answer := r.must("GET", e.Images, ""); !strings.Contains(answer, digest) {
			t.Errorf("images of %s: %s", e.Payload.Malware, answer)
		}
	}
	if found == 0 {
		t.Error("no event of malware")
	}
	r.must("POST", "/api/v1/exceptions", `{"finding":"Tool.Bad","digest":"`+digest+`","reason":"our own tool"}`)
	var f struct {
		Findings []struct {
			ID         string
			Suppressed *struct{ By, Reason string }
		}
		Kinds map[string]struct{ Critical int }
	}
	r.get(path+"/findings?kind=malware", &f)
	if len(f.Findings) != 2 || f.Findings[1].ID != "Tool.Bad" || f.Findings[1].Suppressed == nil || !strings.Contains(f.Findings[1].Suppressed.Reason, "our own tool") || f.Kinds["malware"].Critical != 1 {
		t.Errorf("with an exception: %+v", f)
	}
}

// TestFindingsAreForThoseWhoMayPull: a digest opens nothing by itself.
func TestFindingsAreForThoseWhoMayPull(t *testing.T) {
	for _, open := range []bool{false, true} {
		r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = open })
		digest := r.push("a/b:1")
		want := map[string]int{
			"/api/v1/images/" + digest + "/findings": 200, "/api/v1/images/" + digest + "/base": 0,
			"/api/v1/images?vulnerability=CVE-1": 401, "/api/v1/events": 401, "/api/v1/malware/lists": 401, "/api/v1/malware": 401,
			"/api/v1/images/sha256:" + strings.Repeat("0", 64) + "/findings": 401, "/api/v1/images/latest/findings": 400,
		}
		for path, code := range want {
			if !open && code != 400 {
				code = 401
			}
			res, err := http.Get(r.url + path)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if code != 0 && res.StatusCode != code {
				t.Errorf("anonymous pull %v: %s: %d, want %d", open, path, res.StatusCode, code)
			}
		}
		if code, _ := r.call("GET", "/api/v1/images/sha256:"+strings.Repeat("0", 64)+"/findings", ""); code != 404 {
			t.Errorf("an image that is not there: %d", code)
		}
		http.DefaultClient.CloseIdleConnections()
	}
}

// TestMalwareListsOfTheSettings: lists that the settings name are read at start.
func TestMalwareListsOfTheSettings(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/bad.txt"
	if err := os.WriteFile(path, []byte(gatehouse.DigestOf([]byte("x")).Hex()+" X\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, t.TempDir(), func(c *config.Config) { c.MalwareLists = []string{path} })
	if l := r.must("GET", "/api/v1/malware/lists", ""); !strings.Contains(l, `"bad.txt"`) {
		t.Errorf("lists: %s", l)
	}
}

// TestNobodyLooksForMalware: that none was found proves nothing then.
func TestNobodyLooksForMalware(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	digest := r.push("a/b:1")
	malware := func() (complete bool, reasons string) {
		t.Helper()
		var f findingsAnswer
		r.eventually("the index", func() bool { r.get("/api/v1/images/"+digest+"/findings", &f); return f.Indexed })
		return f.Kinds["malware"].Complete, strings.Join(f.Kinds["malware"].IncompleteReasons, "; ")
	}
	if complete, reasons := malware(); complete || !strings.Contains(reasons, "looks for no malware") {
		t.Errorf("complete %v: %s", complete, reasons)
	}
	r.must("POST", "/api/v1/advisories?name=x", record)
	r.must("PUT", "/api/v1/malware/lists/mine", gatehouse.DigestOf([]byte("x")).Hex())
	if complete, reasons := malware(); !complete || reasons != "" {
		t.Errorf("with a list: complete %v: %s", complete, reasons)
	}
}

// TestEveryImageHasItsSBOM: clients pull it as a referrer, in both formats, and it
// can be turned off.
func TestEveryImageHasItsSBOM(t *testing.T) {
	app := imageOf(t, tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`))
	for _, on := range []bool{true, false} {
		r := start(t, t.TempDir(), func(c *config.Config) { c.SBOMReferrers = on })
		digest := r.pushImage("team/app:1", app)
		bill := func(mediaType string) string {
			var index struct{ Manifests []gatehouse.Descriptor }
			r.get("/v2/team/app/referrers/"+digest+"?artifactType="+url.QueryEscape(mediaType), &index)
			if len(index.Manifests) == 0 {
				return ""
			}
			var m struct{ Layers []gatehouse.Descriptor }
			r.get("/v2/team/app/manifests/"+string(index.Manifests[0].Digest), &m)
			return r.must("GET", "/v2/team/app/blobs/"+string(m.Layers[0].Digest), "")
		}
		if !on {
			var f findingsAnswer
			r.eventually("the index", func() bool { r.get("/api/v1/images/"+digest+"/findings", &f); return f.Indexed })
			if b := bill("application/spdx+json"); b != "" {
				t.Errorf("turned off: %s", b)
			}
			continue
		}
		for mediaType, want := range map[string]string{"application/spdx+json": `"SPDX-2.3"`, "application/vnd.cyclonedx+json": `"CycloneDX"`} {
			r.eventually(mediaType, func() bool { return bill(mediaType) != "" })
			if b := bill(mediaType); !strings.Contains(b, want) || !strings.Contains(b, "pkg:npm/a@1.0.0") || !strings.Contains(b, digest) && !strings.Contains(b, strings.TrimPrefix(digest, "sha256:")) {
				t.Errorf("%s: %s", mediaType, b)
			}
		}
	}
}

// TestLicencesOfTheSettings: classes of the settings are those of findings and of
// what policies limit, for images that were there before as well.
func TestLicencesOfTheSettings(t *testing.T) {
	dir := t.TempDir()
	licensed := func(r *running, digest string) (out []string) {
		var answer struct {
			Findings []struct{ ID, Severity string }
			Kinds    map[string]struct{ Critical, High int }
		}
		r.eventually("the findings", func() bool {
			code, body := r.call("GET", "/api/v1/images/"+digest+"/findings?kind=license", "")
			return code == 200 && strings.Contains(body, `"indexed": true`)
		})
		r.get("/api/v1/images/"+digest+"/findings?kind=license", &answer)
		for _, f := range answer.Findings {
			out = append(out, f.ID+" "+f.Severity)
		}
		return append(out, fmt.Sprintf("%d critical", answer.Kinds["license"].Critical))
	}
	r := start(t, dir, nil)
	digest := r.pushImage("team/app:1", imageOf(t, tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.0","license":"GPL-3.0-only"}`,
		"app/node_modules/b/package.json", `{"name":"b","version":"1.0.0","license":"MIT"}`)))
	if got := licensed(r, digest); !slices.Equal(got, []string{"GPL-3.0-only HIGH", "MIT LOW", "0 critical"}) {
		t.Errorf("by default: %v", got)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, func(c *config.Config) { c.LicenseForbidden, c.IgnoredLicenses = []string{"GPL-3.0"}, []string{"MIT"} })
	if got := licensed(r, digest); !slices.Equal(got, []string{"GPL-3.0-only CRITICAL", "1 critical"}) {
		t.Errorf("with settings: %v", got)
	}
}

// TestScannerSettingsThatCannotBe are told before anything serves.
func TestScannerSettingsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, sub, "bad.txt"), []byte(strings.Repeat("ab", 32)+" Bad\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, change := range map[string]func(*config.Config){
		"is both forbidden and notice": func(c *config.Config) { c.LicenseForbidden, c.LicenseNotice = []string{"MIT"}, []string{"mit"} },
		"have the same file name": func(c *config.Config) {
			c.MalwareLists = []string{filepath.Join(dir, "a", "bad.txt"), filepath.Join(dir, "b", "bad.txt")}
		},
		"malware-lists: " + dir: func(c *config.Config) { c.MalwareLists = []string{filepath.Join(dir, "missing")} },
		"registry-login-file":   func(c *config.Config) { c.RegistryLoginFile = filepath.Join(dir, "missing") },
	} {
		cfg := config.Default()
		cfg.Data, cfg.Listen, cfg.AdmissionListen = t.TempDir(), "127.0.0.1:0", ""
		change(&cfg)
		if err := server.CheckScanner(cfg); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("check: %v, want %q", err, want)
		}
		if _, err := server.New(t.Context(), cfg, func(string) string { return "" }, slog.New(slog.DiscardHandler)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("start: %v, want %q", err, want)
		}
	}
}
