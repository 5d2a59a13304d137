package registrytest

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
)

// bodySizeMax is the largest answer that a script looks at.
const bodySizeMax = 16 << 20

// state is a case while it runs.
type state struct {
	t      *testing.T
	target Target
	line   int
	vars   map[string]string
	blobs  map[string][]byte
	answer *http.Response
	body   []byte
}

var caseNumber atomic.Int64

func newState(t *testing.T, target Target) *state {
	n := caseNumber.Add(1)
	return &state{t: t, target: target, blobs: map[string][]byte{}, vars: map[string]string{
		"repo": fmt.Sprintf("suite/case-%d", n), "repo2": fmt.Sprintf("suite/case-%d/other", n),
	}}
}

func (s *state) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("line %d: %s", s.line, fmt.Sprintf(format, args...))
}

func (s *state) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("line %d: %s", s.line, fmt.Sprintf(format, args...))
}

var variable = regexp.MustCompile(`\$([a-z][a-z0-9]*(?:\.(?:digest|hex|sha512|size))?)`)

// expand replaces variables; quote is applied to each value.
func (s *state) expand(text string, quote func(string) string) string {
	s.t.Helper()
	return variable.ReplaceAllStringFunc(text, func(name string) string {
		value, ok := s.vars[name[1:]]
		if !ok {
			s.fatalf("%s is not set", name)
		}
		return quote(value)
	})
}

func plain(s string) string { return s }

func (s *state) define(name string, data []byte) {
	sum := sha512.Sum512(data)
	s.blobs[name] = data
	s.vars[name+".digest"] = string(gatehouse.DigestOf(data))
	s.vars[name+".hex"] = gatehouse.DigestOf(data).Hex()
	s.vars[name+".sha512"] = "sha512:" + hex.EncodeToString(sum[:])
	s.vars[name+".size"] = strconv.Itoa(len(data))
}

func (s *state) run(st statement) {
	s.t.Helper()
	name, rest, _ := strings.Cut(st.rest, " ")
	switch {
	case isMethod(st.verb):
		s.request(st)
	case st.verb == "blob":
		s.define(name, []byte(s.expand(rest, plain)))
	case st.verb == "zeros":
		n, err := strconv.Atoi(rest)
		if err != nil {
			s.fatalf("%v", err)
		}
		s.define(name, make([]byte, n))
	case st.verb == "manifest":
		s.define(name, []byte(s.expand(strings.Join(append([]string{rest}, st.more...), "\n"), plain)))
	case st.verb == "push":
		s.push(s.expand(name, plain), strings.TrimPrefix(rest, "$"))
	case st.verb == "image":
		repo, reference, _ := strings.Cut(s.expand(rest, plain), " ")
		s.image(name, repo, reference)
	case st.verb == "set":
		s.vars[name] = s.answer.Header.Get(strings.TrimPrefix(rest, "header "))
	default:
		s.expect(st)
	}
}

// request sends one request and keeps the answer.
func (s *state) request(st statement) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), st.verb, s.target.URL+s.expand(st.rest, plain), nil)
	if err != nil {
		s.fatalf("%v", err)
	}
	user := "admin"
	chunked := false
	for _, line := range st.more {
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case word == "body":
			data := s.part(rest)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
			if len(data) == 0 {
				r.Body = http.NoBody
			}
		case word == "chunked":
			chunked = true
		case word == "as":
			user = rest
		case strings.HasSuffix(word, ":"):
			r.Header.Add(strings.TrimSuffix(word, ":"), s.expand(rest, plain))
		default:
			s.fatalf("%q is no part of a request", line)
		}
	}
	if chunked {
		r.ContentLength = -1
	}
	if user != "nobody" {
		password, ok := s.target.Passwords[user]
		if !ok {
			s.fatalf("the target has no user %q", user)
		}
		r.SetBasicAuth(user, password)
	}
	s.send(r)
}

func (s *state) send(r *http.Request) {
	s.t.Helper()
	client := *s.target.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := client.Do(r)
	if err != nil {
		s.fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer answer.Body.Close()
	s.answer = answer
	if s.body, err = io.ReadAll(io.LimitReader(answer.Body, bodySizeMax)); err != nil {
		s.fatalf("%s %s: reading the answer: %v", r.Method, r.URL, err)
	}
}

// part is "$NAME" or "$NAME FIRST END", the bytes from first up to end.
func (s *state) part(text string) []byte {
	s.t.Helper()
	words := strings.Fields(text)
	data, ok := s.blobs[strings.TrimPrefix(words[0], "$")]
	if !ok {
		s.fatalf("there are no bytes %s", words[0])
	}
	if len(words) != 3 {
		return data
	}
	first, errFirst := strconv.Atoi(words[1])
	end, errEnd := strconv.Atoi(words[2])
	if errFirst != nil || errEnd != nil || first > end || end > len(data) {
		s.fatalf("%q is no part of %d bytes", text, len(data))
	}
	return data[first:end]
}

func (s *state) push(repo, name string) {
	s.t.Helper()
	data, ok := s.blobs[name]
	if !ok {
		s.fatalf("there are no bytes $%s", name)
	}
	s.must("POST", "/v2/"+repo+"/blobs/uploads/?digest="+s.vars[name+".digest"], "application/octet-stream", data)
}

// image pushes a config, a layer and a manifest that no other case has.
func (s *state) image(name, repo, reference string) {
	s.t.Helper()
	s.define(name+"config", fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{"Env":["CASE=%s %s"]},"rootfs":{"type":"layers","diff_ids":[]}}`, repo, name))
	s.define(name+"layer", []byte("layer of "+repo+" "+name))
	s.push(repo, name+"config")
	s.push(repo, name+"layer")
	s.define(name, []byte(s.expand(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,
		"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$%[2]sconfig.digest","size":$%[2]sconfig.size},
		"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"$%[2]slayer.digest","size":$%[2]slayer.size}]}`,
		manifestType, name), plain)))
	if reference == "digest" {
		reference = s.vars[name+".digest"]
	}
	s.must("PUT", "/v2/"+repo+"/manifests/"+reference, manifestType, s.blobs[name])
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// must sends a request of the preparation, which has to be answered with 201.
func (s *state) must(method, path, mediaType string, data []byte) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.target.URL+path, bytes.NewReader(data))
	if err != nil {
		s.fatalf("%v", err)
	}
	r.Header.Set("Content-Type", mediaType)
	r.SetBasicAuth("admin", s.target.Passwords["admin"])
	s.send(r)
	if s.answer.StatusCode != http.StatusCreated {
		s.fatalf("%s %s: %s\n%s", method, path, s.answer.Status, s.body)
	}
}

func (s *state) expect(st statement) {
	s.t.Helper()
	if s.answer == nil {
		s.fatalf("%q expects something of no answer", st.verb)
	}
	switch st.verb {
	case "code":
		want, err := strconv.Atoi(strings.TrimPrefix(st.rest, "== "))
		if err != nil {
			s.fatalf("%q is no code", st.rest)
		}
		if s.answer.StatusCode != want {
			s.fatalf("%s %s: code %d, want %d\n%s", s.answer.Request.Method, s.answer.Request.URL, s.answer.StatusCode, want, clip(s.body))
		}
	case "header":
		name, rest, _ := strings.Cut(st.rest, " ")
		s.compare("header "+name, strings.Join(s.answer.Header.Values(name), ", "), s.answer.Header.Values(name) != nil, rest)
	case "body":
		if name, ok := strings.CutPrefix(st.rest, "== $"); ok {
			if want := s.part("$" + name); !bytes.Equal(s.body, want) {
				s.errorf("body has %d bytes %q, want %d bytes", len(s.body), clip(s.body), len(want))
			}
			return
		}
		s.compare("body", string(s.body), true, st.rest)
	case "json":
		s.expectJSON(st.rest)
	case "error":
		s.expectError(st.rest)
	default:
		s.fatalf("%q is no statement", st.verb)
	}
}

// compare is "== TEXT", "~ REGEXP" or "absent".
func (s *state) compare(what, got string, present bool, want string) {
	s.t.Helper()
	op, value, _ := strings.Cut(want, " ")
	switch op {
	case "==":
		if value = s.expand(value, plain); got != value {
			s.errorf("%s is %q, want %q", what, got, value)
		}
	case "~":
		re, err := regexp.Compile(s.expand(value, regexp.QuoteMeta))
		if err != nil {
			s.fatalf("%v", err)
		}
		if !re.MatchString(got) {
			s.errorf("%s is %q, want something like %s", what, got, re)
		}
	case "absent":
		if present {
			s.errorf("%s is %q, want none", what, got)
		}
	default:
		s.fatalf("%q compares nothing", want)
	}
}

func (s *state) expectJSON(text string) {
	s.t.Helper()
	path, value, ok := strings.Cut(text, " == ")
	var got, want any
	if err := json.Unmarshal([]byte(s.expand(value, plain)), &want); !ok || err != nil {
		s.fatalf("%q is no expectation: %v", text, err)
	}
	if err := json.Unmarshal(s.body, &got); err != nil {
		s.fatalf("the body is no JSON: %v\n%s", err, clip(s.body))
	}
	for key := range strings.SplitSeq(path, ".") {
		switch v := got.(type) {
		case map[string]any:
			got = v[key]
		case []any:
			if key == "length" {
				got = float64(len(v))
				continue
			}
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(v) {
				s.fatalf("%s: a list of %d has no %q\n%s", path, len(v), key, clip(s.body))
			}
			got = v[i]
		default:
			s.fatalf("%s: there is no %q\n%s", path, key, clip(s.body))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.errorf("%s (-want +got):\n%s", path, diff)
	}
}

// specCodes are those of the distribution-spec, "Error Codes".
var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID",
	"MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

// expectError wants the spec's error document: JSON, a code, a message that says
// something.
func (s *state) expectError(code string) {
	s.t.Helper()
	if s.answer.Request.Method == http.MethodHead {
		s.fatalf("a HEAD has no body to hold %s", code)
	}
	s.compare("header Content-Type", s.answer.Header.Get("Content-Type"), true, "~ ^application/json")
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(s.body, &doc); err != nil || len(doc.Errors) == 0 {
		s.fatalf("no error document (%v): %s", err, clip(s.body))
	}
	if !slices.Contains(specCodes, doc.Errors[0].Code) {
		s.errorf("error code %s is none of the specification", doc.Errors[0].Code)
	}
	if doc.Errors[0].Code != code {
		s.errorf("error code %s (%s), want %s", doc.Errors[0].Code, doc.Errors[0].Message, code)
	}
	if len(doc.Errors[0].Message) < 8 {
		s.errorf("the message %q says nothing", doc.Errors[0].Message)
	}
}

func (s *state) done() { s.target.Client.CloseIdleConnections() }

func clip(b []byte) []byte { return b[:min(len(b), 400)] }
