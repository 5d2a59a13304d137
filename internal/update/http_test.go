package update

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
)

func nothing(string) (string, int) { return "", 0 }

// newFetcher is a fetcher whose clock stands still and that notes its pauses
// instead of waiting.
func newFetcher(t *testing.T, pauses *[]time.Duration) *Fetcher {
	t.Helper()
	out := egress.New(egress.Config{UserTyped: true})
	t.Cleanup(out.Close)
	return &Fetcher{
		Transport: out.Transport(), Dir: t.TempDir(), Now: func() time.Time { return noon }, dice: func() float64 { return 0.5 },
		sleep: func(ctx context.Context, d time.Duration) error {
			if pauses != nil {
				*pauses = append(*pauses, d)
			}
			return ctx.Err()
		},
	}
}

// source is one published file on a real server that can misbehave.
type source struct {
	mu     sync.Mutex
	body   []byte
	etag   string
	header http.Header
	// answers replace the usual answer, one after the other.
	answers []http.HandlerFunc
	asked   []*http.Request
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r)
	if len(s.answers) > 0 {
		answer := s.answers[0]
		s.answers = s.answers[1:]
		answer(w, r)
		return
	}
	for k, v := range s.header {
		w.Header()[k] = v
	}
	if s.etag != "" {
		w.Header().Set("ETag", s.etag)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.body))
}

func serve(t *testing.T, s *source) *url.URL {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL + "/all.zip")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// cut sends the first n bytes of what it says that it sends, and breaks off.
func cut(s *source, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", s.etag)
		w.Header().Set("Content-Length", strconv.Itoa(len(s.body)))
		_, _ = w.Write(s.body[:n])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// download gets the file once.
func (f *Fetcher) download(t *testing.T, u *url.URL, known string, sizeMax int64) (body []byte, validator string, err error) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	validator, err = f.get(t.Context(), u, known, sizeMax, out)
	if err != nil {
		return nil, validator, err
	}
	body, err = os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return body, validator, nil
}

var content = bytes.Repeat([]byte("0123456789abcdef"), 8<<10)

// TestOnlyWhatHasChanged is fetched: ETag and Last-Modified.
func TestOnlyWhatHasChanged(t *testing.T) {
	for name, s := range map[string]*source{
		"etag":      {body: content, etag: `"v1"`},
		"weak etag": {body: content, etag: `W/"v1"`},
		"time":      {body: content, header: http.Header{"Last-Modified": {"Tue, 03 Mar 2026 00:00:00 GMT"}}},
	} {
		t.Run(name, func(t *testing.T) {
			f, u := newFetcher(t, nil), serve(t, s)
			body, validator, err := f.download(t, u, "", 1<<20)
			if err != nil || !bytes.Equal(body, content) || validator == "" {
				t.Fatalf("%d bytes, %q, %v", len(body), validator, err)
			}
			if name == "time" { // ServeContent looks at a time that it is handed
				s.answers = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
					http.ServeContent(w, r, "", time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC), bytes.NewReader(content))
				}}
			}
			if _, _, err := f.download(t, u, validator, 1<<20); err != errUnchanged {
				t.Errorf("the same again: %v", err)
			}
			s.etag, s.header, s.body = `"v2"`, nil, content[:100]
			body, again, err := f.download(t, u, validator, 1<<20)
			if err != nil || len(body) != 100 || again == validator {
				t.Errorf("what has changed: %d bytes, %q, %v", len(body), again, err)
			}
		})
	}
}

// TestBrokenOffIsContinued where the source says that the file is the same, and
// begun anew where it does not or where the file has changed meanwhile.
func TestBrokenOffIsContinued(t *testing.T) {
	for name, c := range map[string]struct {
		etag   string
		change func(*source)
		ranges []string // of the requests after the first
	}{
		"continued":            {etag: `"v1"`, ranges: []string{"bytes=1000-", "bytes=3000-"}},
		"no name":              {ranges: []string{"", ""}},
		"a weak name":          {etag: `W/"v1"`, ranges: []string{"", ""}},
		"changed meanwhile":    {etag: `"v1"`, ranges: []string{"bytes=1000-"}, change: func(s *source) { s.answers = s.answers[:1]; s.answers = append(s.answers, change) }},
		"wrong place":          {etag: `"v1"`, ranges: []string{"bytes=1000-", ""}, change: func(s *source) { s.answers[1] = wrongPlace }},
		"no more of it":        {etag: `"v1"`, ranges: []string{"bytes=1000-", ""}, change: func(s *source) { s.answers[1] = status(http.StatusRequestedRangeNotSatisfiable) }},
		"overloaded meanwhile": {etag: `"v1"`, ranges: []string{"bytes=1000-", "bytes=1000-"}, change: func(s *source) { s.answers[1] = status(http.StatusBadGateway) }},
	} {
		t.Run(name, func(t *testing.T) {
			var pauses []time.Duration
			s := &source{body: content, etag: c.etag}
			s.answers = []http.HandlerFunc{cut(s, 1000), func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" {
					cut(s, 1000)(w, r)
					return
				}
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 1000-%d/%d", len(content)-1, len(content)))
				w.Header().Set("Content-Length", strconv.Itoa(len(content)-1000))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(content[1000:3000])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}}
			if c.change != nil {
				c.change(s)
			}
			want := content
			if name == "changed meanwhile" {
				want = []byte("something else")
			}
			f, u := newFetcher(t, &pauses), serve(t, s)
			body, _, err := f.download(t, u, "", 1<<20)
			if err != nil || !bytes.Equal(body, want) {
				t.Fatalf("%d bytes, %v", len(body), err)
			}
			var ranges []string
			for _, r := range s.asked[1:] {
				ranges = append(ranges, r.Header.Get("Range"))
			}
			if fmt.Sprint(ranges) != fmt.Sprint(c.ranges) {
				t.Errorf("ranges %q, want %q", ranges, c.ranges)
			}
			if len(pauses) != len(s.asked)-1 {
				t.Errorf("%d pauses between %d requests", len(pauses), len(s.asked))
			}
		})
	}
}

// change answers a range of a file that is another one by now with all of it.
func change(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("ETag", `"v2"`)
	_, _ = io.WriteString(w, "something else")
}

func wrongPlace(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes 999-%d/%d", len(content)-1, len(content)))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(content[999:])
}

// TestGivesUp on a source that always breaks off, after as many attempts as it
// may make.
func TestGivesUp(t *testing.T) {
	s := &source{body: content, etag: `"v1"`}
	for range 20 {
		s.answers = append(s.answers, cut(s, 0))
	}
	f, u := newFetcher(t, nil), serve(t, s)
	_, _, err := f.download(t, u, "", 1<<20)
	if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || len(s.asked) != attemptsMax {
		t.Errorf("%d requests, %v", len(s.asked), err)
	}
}

// TestRateLimit: a source that asks for patience gets it, in this run where it
// is short, else by the next one.
func TestRateLimit(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		pause  time.Duration // waited in this run
		until  time.Duration // else: not before
	}{
		"short":        {answer: status(429, "Retry-After", "7"), pause: 7 * time.Second},
		"long":         {answer: status(429, "Retry-After", "3600"), until: time.Hour},
		"a time":       {answer: status(429, "Retry-After", noon.Add(2*time.Hour).Format(http.TimeFormat)), until: 2 * time.Hour},
		"not said":     {answer: status(429), until: time.Minute},
		"overloaded":   {answer: status(503, "Retry-After", "5"), pause: 5 * time.Second},
		"maintenance":  {answer: status(503, "Retry-After", "7200"), until: 2 * time.Hour},
		"nonsense":     {answer: status(503, "Retry-After", "soon"), pause: time.Second},
		"the past":     {answer: status(503, "Retry-After", noon.Add(-time.Hour).Format(http.TimeFormat)), pause: time.Second},
		"out of range": {answer: status(503, "Retry-After", "99999999999999999999"), pause: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var pauses []time.Duration
			s := &source{body: content, answers: []http.HandlerFunc{c.answer}}
			f, u := newFetcher(t, &pauses), serve(t, s)
			feeds := []Feed{{Name: "osv/x", kind: NameOSV, url: u, sizeMax: 1 << 20}}
			r := f.Fetch(t.Context(), feeds, nil, nothing)[0]
			defer r.Discard()
			if c.pause > 0 {
				if r.Err != nil || len(pauses) != 1 || pauses[0] != c.pause {
					t.Errorf("%v, pauses %v, want one of %s", r.Err, pauses, c.pause)
				}
				return
			}
			if r.Err == nil || len(pauses) != 0 || len(s.asked) != 1 || !r.State.NotBefore.Equal(noon.Add(c.until)) {
				t.Fatalf("%v, %d requests, not before %s", r.Err, len(s.asked), r.State.NotBefore)
			}
			// Nobody asks again before, by hand neither.
			states := map[string]State{"osv/x": r.State.Ask(true)}
			if r := f.Fetch(t.Context(), feeds, states, nothing)[0]; !r.Skipped || len(s.asked) != 1 {
				t.Errorf("asked again: %+v", r)
			}
			f.Now = func() time.Time { return noon.Add(c.until) }
			r = f.Fetch(t.Context(), feeds, states, nothing)[0]
			defer r.Discard()
			if r.Skipped || r.Err != nil || r.File == nil {
				t.Errorf("not asked when it may be: %+v", r)
			}
		})
	}
}

func TestRefusedAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		code   gatehouse.Code
		tries  int
	}{
		"not there":          {status(404), gatehouse.CodeNotFound, 1},
		"gone":               {status(410), gatehouse.CodeNotFound, 1},
		"denied":             {status(403), gatehouse.CodeDenied, 1},
		"login":              {status(401), gatehouse.CodeDenied, 1},
		"teapot":             {status(418), gatehouse.CodeInvalid, 1},
		"no content":         {status(204), gatehouse.CodeInvalid, 1},
		"unchanged, unasked": {status(304), gatehouse.CodeInvalid, 1},
		"empty":              {status(200), gatehouse.CodeInvalid, 1},
		"compressed":         {status(200, "Content-Encoding", "gzip"), gatehouse.CodeInvalid, 1},
		"says too much":      {status(200, "Content-Length", "1048577"), gatehouse.CodeTooLarge, 1},
		"sends too much": {func(w http.ResponseWriter, _ *http.Request) {
			for range 17 {
				_, _ = w.Write(make([]byte, 64<<10))
				_ = http.NewResponseController(w).Flush() // chunked: nobody says how much
			}
		}, gatehouse.CodeTooLarge, 1},
		"broken inside": {status(500), gatehouse.CodeUnavailable, attemptsMax},
		"in circles":    {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, gatehouse.CodeTooMany, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &source{body: content}
			for range 50 {
				s.answers = append(s.answers, c.answer)
			}
			f, u := newFetcher(t, nil), serve(t, s)
			_, _, err := f.download(t, u, "", 1<<20)
			if gatehouse.CodeOf(err) != c.code || c.tries > 0 && len(s.asked) != c.tries {
				t.Errorf("%d requests, %s: %v; want %s", len(s.asked), gatehouse.CodeOf(err), err, c.code)
			}
		})
	}
}

// TestDigests that the source names are those of the file.
func TestDigests(t *testing.T) {
	sum := md5.Sum(content)
	crc := crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))
	good := base64.StdEncoding.EncodeToString(sum[:])
	goodCRC := base64.StdEncoding.EncodeToString([]byte{byte(crc >> 24), byte(crc >> 16), byte(crc >> 8), byte(crc)})
	sha := sha256.Sum256(content)
	repr := base64.StdEncoding.EncodeToString(sha[:])
	for name, c := range map[string]struct {
		header http.Header
		ok     bool
	}{
		"md5":         {http.Header{"X-Goog-Hash": {"md5=" + good}}, true},
		"both":        {http.Header{"X-Goog-Hash": {"crc32c=" + goodCRC, "md5=" + good}}, true},
		"in one line": {http.Header{"X-Goog-Hash": {"crc32c=" + goodCRC + ",md5=" + good}}, true},
		"sha-256":     {http.Header{"Repr-Digest": {"sha-256=:" + repr + ":"}}, true},
		"unknown":     {http.Header{"X-Goog-Hash": {"sha9=AAAA"}}, true},
		"other md5":   {http.Header{"X-Goog-Hash": {"md5=AAAAAAAAAAAAAAAAAAAAAA=="}}, false},
		"other crc":   {http.Header{"X-Goog-Hash": {"crc32c=AAAAAA==,md5=" + good}}, false},
		"other sha":   {http.Header{"Repr-Digest": {"sha-256=:AAAA:"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &source{body: content, header: c.header}
			f, u := newFetcher(t, nil), serve(t, s)
			if _, _, err := f.download(t, u, "", 1<<20); (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestRedirects are followed, but not into the server's own network.
func TestRedirects(t *testing.T) {
	inside := &source{body: content}
	secret := serve(t, inside)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("no address 127.0.0.2: %v", err)
	}
	outside := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		_, _ = w.Write(content)
	})}}
	outside.Start()
	t.Cleanup(outside.Close)
	strict := egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	t.Cleanup(strict.Close)
	f := newFetcher(t, nil)
	f.Transport = strict.Transport()
	get := func(to string) error {
		u, err := url.Parse(outside.URL + "/?to=" + url.QueryEscape(to))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = f.download(t, u, "", 1<<20)
		return err
	}
	if err := get(outside.URL + "/there"); err != nil {
		t.Errorf("a redirect: %v", err)
	}
	err = get(secret.String())
	if gatehouse.CodeOf(err) != gatehouse.CodeDenied || !strings.Contains(err.Error(), "loopback") || len(inside.asked) != 0 {
		t.Errorf("a redirect inside: %v, %d requests", err, len(inside.asked))
	}
	if err := get("file:///etc/passwd"); err == nil {
		t.Error("a redirect to a file was followed")
	}
}

// TestRedirectOutOfTLS is not followed: what comes that way nobody vouches for.
func TestRedirectOutOfTLS(t *testing.T) {
	plain := &source{body: content}
	to := serve(t, plain)
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/inside" {
			http.Redirect(w, r, "/there", http.StatusFound)
			return
		}
		if r.URL.Path == "/there" {
			_, _ = w.Write(content)
			return
		}
		http.Redirect(w, r, to.String(), http.StatusFound)
	}))
	t.Cleanup(secure.Close)
	f := newFetcher(t, nil)
	f.Transport = secure.Client().Transport
	for path, want := range map[string]gatehouse.Code{"/inside": "", "/out": gatehouse.CodeDenied} {
		u, err := url.Parse(secure.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.download(t, u, "", 1<<20); gatehouse.CodeOf(err) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if len(plain.asked) != 0 {
		t.Errorf("the feed was asked for without TLS")
	}
}
