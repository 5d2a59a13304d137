package registry_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/auth"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

// fenced lets nobody but "warden" into repositories under private/, and everybody
// with a name push elsewhere: what roles will do, in one line.
type fenced struct{ *auth.Auth }

func (f fenced) Allow(_ context.Context, actor gatehouse.Actor, action string, repo gatehouse.Repo) bool {
	return !actor.Anonymous() && (actor.Name == "warden" || !strings.HasPrefix(string(repo), "private/"))
}

// ask sends a request straight to a handler.
func ask(handler http.Handler, method, target, user string, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if password := map[string]string{"admin": adminPassword, "reader": readerPassword}[user]; password != "" {
		r.SetBasicAuth(user, password)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// A mount from a repository that the actor may not read looks like one from a
// repository that does not have the blob.
func TestMountWithoutReadAccess(t *testing.T) {
	h := newHouse(t, setup{})
	secret := putBlob(t, h.content, "private/a", []byte("secret"))
	open := putBlob(t, h.content, "public/a", []byte("open"))
	handler := registry.New(registry.Options{Content: h.content, Auth: fenced{h.auth}})
	mount := func(digest gatehouse.Digest, from string) *httptest.ResponseRecorder {
		return ask(handler, "POST", fmt.Sprintf("/v2/mine/b/blobs/uploads/?mount=%s&from=%s", digest, from), "reader", "")
	}
	if w := mount(open, "public/a"); w.Code != 201 {
		t.Fatalf("mount of what may be read: %d %s", w.Code, w.Body)
	}
	denied, missing := mount(secret, "private/a"), mount(secret, "public/a")
	if denied.Code != 202 || missing.Code != 202 {
		t.Fatalf("denied %d, missing %d; want 202 for both", denied.Code, missing.Code)
	}
	names := func(h http.Header) (out []string) {
		for name := range h {
			out = append(out, name)
		}
		slices.Sort(out)
		return out
	}
	if diff := cmp.Diff(names(missing.Header()), names(denied.Header())); diff != "" {
		t.Errorf("the answers can be told apart (-missing +denied):\n%s", diff)
	}
	if w := ask(handler, "HEAD", "/v2/mine/b/blobs/"+string(secret), "reader", ""); w.Code != 404 {
		t.Errorf("the secret was mounted: %d", w.Code)
	}
}

// A mount that names no place finds the blob where the actor may read it, and
// nowhere else; that it lies somewhere is not told.
func TestMountFromAnywhere(t *testing.T) {
	h := newHouse(t, setup{})
	secret := putBlob(t, h.content, "private/a", []byte("secret"))
	handler := registry.New(registry.Options{Content: h.content, Auth: fenced{h.auth}})
	mount := func(digest gatehouse.Digest, user string) *httptest.ResponseRecorder {
		return ask(handler, "POST", "/v2/mine/b/blobs/uploads/?mount="+string(digest), user, "")
	}
	if w := mount(secret, "reader"); w.Code != 202 || w.Header().Get("Location") == "" {
		t.Errorf("of what lies in a closed repository alone: %d, want a session", w.Code)
	}
	if w := ask(handler, "HEAD", "/v2/mine/b/blobs/"+string(secret), "reader", ""); w.Code != 404 {
		t.Errorf("the secret was mounted: %d", w.Code)
	}
	putBlob(t, h.content, "public/a", []byte("secret"))
	if w := mount(secret, "reader"); w.Code != 201 {
		t.Errorf("of what lies in an open repository as well: %d", w.Code)
	}
	if w := ask(handler, "HEAD", "/v2/mine/b/blobs/"+string(secret), "reader", ""); w.Code != 200 {
		t.Errorf("after the mount: %d", w.Code)
	}
	if w := mount(secret, ""); w.Code != 401 {
		t.Errorf("without a name: %d", w.Code)
	}
}

func TestCatalogShowsWhatMayBeRead(t *testing.T) {
	h := newHouse(t, setup{})
	for i := range 5 {
		putBlob(t, h.content, gatehouse.Repo(fmt.Sprintf("open/%d", i)), []byte("x"))
		putBlob(t, h.content, gatehouse.Repo(fmt.Sprintf("private/%d", i)), []byte("x"))
		putBlob(t, h.content, gatehouse.Repo(fmt.Sprintf("zoo/%d", i)), []byte("x"))
	}
	handler := registry.New(registry.Options{Content: h.content, Auth: fenced{h.auth}})
	want := []string{"open/0", "open/1", "open/2", "open/3", "open/4", "zoo/0", "zoo/1", "zoo/2", "zoo/3", "zoo/4"}
	for _, n := range []int{1, 2, 3, 5, 9, 10, 11} {
		var got []string
		next := fmt.Sprintf("/v2/_catalog?n=%d", n)
		for pages := 0; next != ""; pages++ {
			if pages > len(want) {
				t.Fatalf("n=%d: the pages do not end", n)
			}
			w := ask(handler, "GET", next, "reader", "")
			var page struct{ Repositories []string }
			decode(t, w.Body.Bytes(), &page)
			got = append(got, page.Repositories...)
			next = nextPage(t, w.Header())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("n=%d (-want +got):\n%s", n, diff)
		}
	}
}

// A registry without an Authorizer is closed, whatever is asked of it.
func TestWithoutAuthorizerNothingIsAllowed(t *testing.T) {
	h := newHouse(t, setup{})
	handler := registry.New(registry.Options{Content: h.content})
	for _, c := range parseCases(t) {
		if strings.HasPrefix(c[2], "invalid ") || strings.HasPrefix(c[2], "not-found ") {
			continue
		}
		w := ask(handler, c[0], c[1], "admin", "")
		if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s: %d", c[0], c[1], w.Code)
		}
	}
}

// scopes keeps what the challenges asked for.
type scopes struct {
	*auth.Auth
	asked []string
}

func (s *scopes) Challenge(r *http.Request, scope string) string {
	s.asked = append(s.asked, scope)
	return s.Auth.Challenge(r, scope)
}

func TestChallengeNamesTheScope(t *testing.T) {
	h := newHouse(t, setup{})
	s := &scopes{Auth: h.auth}
	handler := registry.New(registry.Options{Content: h.content, Auth: s})
	for _, request := range [][2]string{
		{"GET", "/v2/"}, {"GET", "/v2/_catalog"}, {"GET", "/v2/a/b/manifests/x"}, {"POST", "/v2/a/blobs/uploads/"}, {"DELETE", "/v2/a/manifests/x"},
	} {
		ask(handler, request[0], request[1], "", "")
	}
	want := []string{"", "registry:catalog:*", "repository:a/b:pull", "repository:a:pull,push", "repository:a:delete"}
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Errorf("scopes (-want +got):\n%s", diff)
	}
}

func TestTooManyFailedLogins(t *testing.T) {
	h := newHouse(t, setup{})
	handler := registry.New(registry.Options{Content: h.content, Auth: h.auth})
	for range 1000 {
		r := httptest.NewRequest("GET", "/v2/", nil)
		r.SetBasicAuth("admin", "wrong")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code == http.StatusUnauthorized {
			continue
		}
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"TOOMANYREQUESTS"`) {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		return
	}
	t.Error("a thousand wrong passwords, and nobody minded")
}

func TestAnonymousPull(t *testing.T) {
	h := newHouse(t, setup{auth: auth.Options{AnonymousPull: true}})
	digest := putBlob(t, h.content, "a", []byte("open"))
	handler := registry.New(registry.Options{Content: h.content, Auth: h.auth})
	ping := ask(handler, "GET", "/v2/", "", "")
	if ping.Code != 200 || ping.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("ping: %d, challenge %q; want 200, and word that a name may lead further", ping.Code, ping.Header().Get("WWW-Authenticate"))
	}
	if w := ask(handler, "GET", "/v2/", "admin", ""); w.Code != 200 || w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("ping with a name: %d, challenge %q", w.Code, w.Header().Get("WWW-Authenticate"))
	}
	for _, tt := range []struct {
		method, target string
		want           int
	}{
		{"GET", "/v2/a/blobs/" + string(digest), 200},
		{"GET", "/v2/_catalog", 200},
		{"GET", "/v2/a/tags/list", 200},
		{"POST", "/v2/a/blobs/uploads/", 401},
		{"DELETE", "/v2/a/blobs/" + string(digest), 401},
		{"PUT", "/v2/a/manifests/x", 401},
	} {
		if w := ask(handler, tt.method, tt.target, "", ""); w.Code != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.target, w.Code, tt.want)
		}
	}
}

// endless has more private repositories than anybody can count.
type endless struct{ gatehouse.Content }

func (endless) Repos(_ context.Context, after string, n int) (out []gatehouse.Repo, _ error) {
	first := 0
	fmt.Sscanf(after, "private/%d", &first)
	for i := range n {
		out = append(out, gatehouse.Repo(fmt.Sprintf("private/%09d", first+i+1)))
	}
	return out, nil
}

// One request does not look at all of them in search of one that may be shown.
func TestCatalogScanIsBounded(t *testing.T) {
	h := newHouse(t, setup{})
	handler := registry.New(registry.Options{Content: endless{h.content}, Auth: fenced{h.auth}})
	w := ask(handler, "GET", "/v2/_catalog?n=1000", "reader", "")
	var page struct{ Repositories []string }
	decode(t, w.Body.Bytes(), &page)
	next := nextPage(t, w.Header())
	if w.Code != 200 || len(page.Repositories) != 0 || next == "" {
		t.Fatalf("%d, %d repositories, next %q; want an empty page and a Link", w.Code, len(page.Repositories), next)
	}
	var seen int
	if _, err := fmt.Sscanf(next, "/v2/_catalog?last=private%%2F%d", &seen); err != nil {
		t.Fatalf("%q: %v", next, err)
	}
	if seen < registry.CatalogScanMax || seen > 2*registry.CatalogScanMax {
		t.Errorf("one request looked at %d names, want about %d", seen, registry.CatalogScanMax)
	}
}
