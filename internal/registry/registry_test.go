package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

func decode(t *testing.T, body []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
}

// nextPage is the target of a Link header, empty where there is none.
func nextPage(t *testing.T, h http.Header) string {
	t.Helper()
	link := h.Get("Link")
	if link == "" {
		return ""
	}
	target, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if _, err := url.ParseRequestURI(target); !ok || err != nil || rest != `; rel="next"` {
		t.Fatalf("Link %q: %v", link, err)
	}
	return target
}

func putManifest(t *testing.T, c gatehouse.Content, put gatehouse.ManifestPut) *gatehouse.Manifest {
	t.Helper()
	m, err := c.PutManifest(t.Context(), gatehouse.System("test"), put)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const indexType = "application/vnd.oci.image.index.v1+json"

func indexBody(extra string) []byte {
	return []byte(`{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[]` + extra + `}`)
}

// A repository of more tags than a page holds is listed whole by following Link.
func TestTagsBeyondOnePage(t *testing.T) {
	h := newHouse(t, setup{page: 100})
	var tags []string
	for i := range 201 {
		tags = append(tags, fmt.Sprintf("t%06d", i))
	}
	for part := range slices.Chunk(tags, registry.TagsPerPutMax) {
		putManifest(t, h.content, gatehouse.ManifestPut{Repo: "a", Tags: part, MediaType: indexType, Body: indexBody("")})
	}
	for _, first := range []string{"/v2/a/tags/list", "/v2/a/tags/list?n=99999999"} {
		var got []string
		pages := 0
		for next := first; next != ""; pages++ {
			answer, body := h.do(t, "GET", next, nil)
			wantStatus(t, next, answer, body, 200)
			var page struct{ Tags []string }
			decode(t, []byte(body), &page)
			got = append(got, page.Tags...)
			next = nextPage(t, answer.Header)
		}
		if pages != 3 {
			t.Errorf("%s: %d pages, want 3", first, pages)
		}
		if diff := cmp.Diff(tags, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", first, diff)
		}
	}
}

// Referrers with long annotations: no answer is longer than a manifest may be,
// and together they are all.
func TestReferrersPages(t *testing.T) {
	h := newHouse(t, setup{})
	subject := putManifest(t, h.content, gatehouse.ManifestPut{Repo: "a", MediaType: indexType, Body: indexBody("")})
	var want []string
	// Annotations of up to 64 KiB are listed: these are more than one answer holds.
	note := strings.Repeat("x", 60<<10)
	for i := range max(registry.ReferrersBatch+8, gatehouse.ManifestSizeMax/len(note)+8) {
		m := putManifest(t, h.content, gatehouse.ManifestPut{Repo: "a", MediaType: indexType, Body: indexBody(fmt.Sprintf(
			`,"artifactType":"application/x+json","subject":{"mediaType":"%s","digest":"%s","size":%d},"annotations":{"n":"%d","x":"%s"}`,
			indexType, subject.Digest, subject.Size, i, note))})
		want = append(want, string(m.Digest))
	}
	for _, query := range []string{"", "?artifactType=application/x%2Bjson&n=15"} {
		var got []string
		pages := 0
		for next := "/v2/a/referrers/" + string(subject.Digest) + query; next != ""; pages++ {
			answer, body := h.do(t, "GET", next, nil)
			wantStatus(t, next, answer, body, 200)
			if len(body) > gatehouse.ManifestSizeMax {
				t.Errorf("%s: a page of %d bytes", query, len(body))
			}
			if filtered := answer.Header.Get("OCI-Filters-Applied") != ""; filtered != strings.Contains(query, "artifactType") {
				t.Errorf("%s, page %d: OCI-Filters-Applied %q", query, pages, answer.Header.Get("OCI-Filters-Applied"))
			}
			var page struct{ Manifests []gatehouse.Descriptor }
			decode(t, []byte(body), &page)
			for _, d := range page.Manifests {
				got = append(got, string(d.Digest))
			}
			next = nextPage(t, answer.Header)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
		if pages < 2 {
			t.Errorf("%s: all in one page", query)
		}
	}
}

// HEAD tells what GET tells, of everything that can be read.
func TestHeadEqualsGet(t *testing.T) {
	h := newHouse(t, setup{})
	blob := putBlob(t, h.content, "a", []byte("a blob"))
	m := putManifest(t, h.content, gatehouse.ManifestPut{Repo: "a", Tags: []string{"v1", "v2"}, MediaType: indexType, Body: indexBody("")})
	for _, target := range []string{
		"/v2/", "/v2/_catalog", "/v2/_catalog?n=1", "/v2/a/tags/list", "/v2/a/tags/list?n=1", "/v2/a/blobs/" + string(blob),
		"/v2/a/manifests/v1", "/v2/a/manifests/" + string(m.Digest), "/v2/a/referrers/" + string(m.Digest),
		"/v2/a/manifests/none", "/v2/a/blobs/" + string(m.Digest), "/v2/A/tags/list", "/v2/none/tags/list",
	} {
		get, body := h.do(t, "GET", target, nil)
		head, none := h.do(t, "HEAD", target, nil)
		if head.StatusCode != get.StatusCode || none != "" {
			t.Errorf("%s: HEAD %d with %q, GET %d", target, head.StatusCode, none, get.StatusCode)
		}
		get.Header.Del("Date")
		head.Header.Del("Date")
		if diff := cmp.Diff(get.Header, head.Header); diff != "" {
			t.Errorf("%s (-GET +HEAD):\n%s", target, diff)
		}
		if get.ContentLength != int64(len(body)) {
			t.Errorf("%s: Content-Length %d of %d bytes", target, get.ContentLength, len(body))
		}
	}
}

// broken is a Content whose reads fail.
type broken struct {
	gatehouse.Content
	err error
}

func (b broken) ManifestByTag(context.Context, gatehouse.Repo, string) (*gatehouse.Manifest, error) {
	return nil, b.err
}

func TestErrorsOfOurOwn(t *testing.T) {
	h := newHouse(t, setup{})
	unavailable := gatehouse.Errorf(gatehouse.CodeUnavailable, "the database does not answer: %w", errors.New("dial tcp 10.0.0.1"))
	tests := []struct {
		name   string
		err    error
		status int
		code   string
		logged bool
		said   string
	}{
		{"a bug", errors.New("secret: password is hunter2"), 500, "UNKNOWN", true, "internal error"},
		{"an internal error", &gatehouse.Error{Code: gatehouse.CodeInternal, Message: "secret"}, 500, "UNKNOWN", true, "internal error"},
		{"a code from the future", &gatehouse.Error{Code: "new", Message: "what is this"}, 500, "UNKNOWN", true, "what is this"},
		{"a wrapped one", fmt.Errorf("secret: %w", unavailable), 503, "UNAVAILABLE", true, "the database does not answer"},
		{"a time of our own is over", fmt.Errorf("secret: %w", context.DeadlineExceeded), 503, "UNAVAILABLE", true, "try again"},
		{"not found", gatehouse.Errorf(gatehouse.CodeNotFound, "no such thing").WithDetail("MANIFEST_UNKNOWN"), 404, "MANIFEST_UNKNOWN", false, "no such thing"},
		{"not found, of no kind", gatehouse.Errorf(gatehouse.CodeNotFound, "no such thing"), 404, "NAME_UNKNOWN", false, "no such thing"},
		{"denied", gatehouse.Errorf(gatehouse.CodeDenied, "policy says no").WithHint("sign it"), 403, "DENIED", false, "policy says no; sign it"},
		{"conflict", gatehouse.Errorf(gatehouse.CodeConflict, "in use"), 409, "DENIED", false, "in use"},
		{"too many", gatehouse.Errorf(gatehouse.CodeTooMany, "slow down"), 429, "TOOMANYREQUESTS", false, "slow down"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log strings.Builder
			handler := registry.New(registry.Options{Content: broken{h.content, tt.err}, Auth: h.auth, Log: slog.New(slog.NewTextHandler(&log, nil))})
			w := ask(handler, "GET", "/v2/a/manifests/v1", "admin", "")
			var doc struct {
				Errors []struct{ Code, Message string }
			}
			decode(t, w.Body.Bytes(), &doc)
			if w.Code != tt.status || len(doc.Errors) != 1 || doc.Errors[0].Code != tt.code || !strings.Contains(doc.Errors[0].Message, tt.said) {
				t.Errorf("%d %s; want %d %s %q", w.Code, w.Body, tt.status, tt.code, tt.said)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("the answer tells too much: %s", w.Body)
			}
			if logged := strings.Contains(log.String(), "level=ERROR"); logged != tt.logged {
				t.Errorf("logged %t, want %t: %s", logged, tt.logged, &log)
			}
			if retry := w.Header().Get("Retry-After") != ""; retry != (tt.status == 503 || tt.status == 429) {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
		})
	}
}

// Many clients push the same image under their own tags at once.
func TestParallelPushes(t *testing.T) {
	h := newHouse(t, setup{})
	small, large := []byte("small"), []byte(strings.Repeat("0123456789", 20_000))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
		"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d},
		"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%d}]}`,
		gatehouse.DigestOf(small), len(small), gatehouse.DigestOf(large), len(large))
	const clients = 12
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for _, blob := range [][]byte{small, large} {
				answer, body := h.do(t, "POST", "/v2/a/blobs/uploads/?digest="+string(gatehouse.DigestOf(blob)), blob)
				if answer.StatusCode != 201 {
					t.Errorf("blob: %s %s", answer.Status, body)
				}
			}
			answer, body := h.do(t, "PUT", fmt.Sprintf("/v2/a/manifests/t%02d", i), manifest, "Content-Type", "application/vnd.oci.image.manifest.v1+json")
			if answer.StatusCode != 201 {
				t.Errorf("manifest: %s %s", answer.Status, body)
			}
			answer, body = h.do(t, "GET", "/v2/a/blobs/"+string(gatehouse.DigestOf(large)), nil)
			if answer.StatusCode != 200 || body != string(large) {
				t.Errorf("pull: %s, %d bytes", answer.Status, len(body))
			}
		})
	}
	wg.Wait()
	answer, body := h.do(t, "GET", "/v2/a/tags/list", nil)
	wantStatus(t, "tags", answer, body, 200)
	var page struct{ Tags []string }
	decode(t, []byte(body), &page)
	if len(page.Tags) != clients {
		t.Errorf("%d tags, want %d", len(page.Tags), clients)
	}
}

// A panic in the depths is no answer: above all it is no 200.
func TestPanicIsNoSuccess(t *testing.T) {
	h := newHouse(t, setup{})
	handler := registry.New(registry.Options{Content: panicking{h.content}, Auth: h.auth})
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/v2/a/manifests/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("admin", adminPassword)
	answer, err := server.Client().Do(r)
	if err == nil {
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		t.Errorf("answered %s %s", answer.Status, body)
	}
}

type panicking struct{ gatehouse.Content }

func (panicking) ManifestByTag(context.Context, gatehouse.Repo, string) (*gatehouse.Manifest, error) {
	panic("a bug")
}

// HTTP/2 has deadlines per stream and no sendfile; the protocol is the same.
func TestHTTP2(t *testing.T) {
	h := newHouse(t, setup{})
	server := httptest.NewUnstartedServer(registry.New(registry.Options{Content: h.content, Auth: h.auth}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	h.URL, h.Client = server.URL, server.Client()
	data := []byte(strings.Repeat("0123456789", 300_000))
	digest := string(gatehouse.DigestOf(data))
	answer, body := h.do(t, "POST", "/v2/a/blobs/uploads/?digest="+digest, data)
	wantStatus(t, "POST", answer, body, 201)
	answer, body = h.do(t, "GET", "/v2/a/blobs/"+digest, nil)
	wantStatus(t, "GET", answer, body, 200)
	if answer.ProtoMajor != 2 || body != string(data) {
		t.Errorf("%s, %d bytes", answer.Proto, len(body))
	}
	answer, body = h.do(t, "GET", "/v2/a/blobs/"+digest, nil, "Range", "bytes=1000000-")
	wantStatus(t, "GET of a part", answer, body, 206)
	if body != string(data[1_000_000:]) {
		t.Errorf("%d bytes of a part", len(body))
	}
}
