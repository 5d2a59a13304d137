package registrytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

// A lifecycle is what the official conformance suite does with each kind of
// content: push all of it, list, HEAD, pull, ask for referrers, then delete tag
// by tag, manifest by manifest, blob by blob, each gone at once. All kinds live
// in one repository, one after the other, so that what one leaves behind is in
// the way of the next.

// content is one kind of content, in the order in which it has to be pushed.
type content struct {
	t         *testing.T
	target    Target
	algorithm string
	repo      string
	blobs     []blob
	manifests []manifest
	apis      int // how many blobs were pushed: each by the next API
}

type blob struct {
	digest gatehouse.Digest
	data   []byte
}

type manifest struct {
	digest    gatehouse.Digest
	mediaType string
	body      []byte
	tag       string
	subject   gatehouse.Digest
	listed    gatehouse.Descriptor // as the list of referrers has it
}

func (c *content) digest(data []byte) gatehouse.Digest {
	h := gatehouse.NewHash(c.algorithm)
	h.Write(data)
	return gatehouse.NewDigest(c.algorithm, h.Sum(nil))
}

func (c *content) blob(mediaType string, data []byte) gatehouse.Descriptor {
	d := c.digest(data)
	if !slices.ContainsFunc(c.blobs, func(b blob) bool { return b.digest == d }) {
		c.blobs = append(c.blobs, blob{d, data})
	}
	return gatehouse.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// manifest adds a manifest made of fields and returns its descriptor.
func (c *content) manifest(tag string, fields map[string]any) gatehouse.Descriptor {
	c.t.Helper()
	mediaType := "application/vnd.oci.image.index.v1+json"
	if fields["config"] != nil {
		mediaType = manifestType
	}
	fields["schemaVersion"], fields["mediaType"] = 2, mediaType
	body, err := json.Marshal(fields)
	if err != nil {
		c.t.Fatal(err)
	}
	m := manifest{digest: c.digest(body), mediaType: mediaType, body: body, tag: tag}
	d := gatehouse.Descriptor{MediaType: mediaType, Digest: m.digest, Size: int64(len(body))}
	m.listed = d
	m.listed.ArtifactType, _ = fields["artifactType"].(string)
	if config, ok := fields["config"].(gatehouse.Descriptor); ok && m.listed.ArtifactType == "" {
		m.listed.ArtifactType = config.MediaType
	}
	m.listed.Annotations, _ = fields["annotations"].(map[string]string)
	if subject, ok := fields["subject"].(gatehouse.Descriptor); ok {
		m.subject = subject.Digest
	}
	c.manifests = append(c.manifests, m)
	return d
}

// image adds an image of its own; more are further fields of its manifest.
func (c *content) image(tag, name string, layers int, more map[string]any) gatehouse.Descriptor {
	c.t.Helper()
	list := []gatehouse.Descriptor{}
	for i := range layers {
		data := bytes.Repeat(fmt.Appendf(nil, "layer %d of %s %s\n", i, name, c.algorithm), 100)
		list = append(list, c.blob("application/vnd.oci.image.layer.v1.tar", data))
	}
	fields := map[string]any{"layers": list}
	for key, value := range more {
		fields[key] = value
	}
	if fields["config"] == nil {
		fields["config"] = c.blob("application/vnd.oci.image.config.v1+json", fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","author":%q}`, name))
	}
	return c.manifest(tag, fields)
}

func (c *content) index(tag string, more map[string]any, children ...gatehouse.Descriptor) gatehouse.Descriptor {
	c.t.Helper()
	fields := map[string]any{"manifests": append([]gatehouse.Descriptor{}, children...)}
	for key, value := range more {
		fields[key] = value
	}
	return c.manifest(tag, fields)
}

// artifact adds an OCI artifact: the empty config, one layer.
func (c *content) artifact(tag, artifactType string, more map[string]any) gatehouse.Descriptor {
	c.t.Helper()
	fields := map[string]any{"artifactType": artifactType, "config": c.blob("application/vnd.oci.empty.v1+json", []byte("{}"))}
	for key, value := range more {
		fields[key] = value
	}
	return c.image(tag, "artifact "+artifactType, 1, fields)
}

// contents are the kinds of content, as the official suite makes them.
var contents = []struct {
	name string
	make func(c *content)
}{
	{"image", func(c *content) { c.image("image", "image", 3, nil) }},
	{"no layers", func(c *content) { c.image("no-layers", "no layers", 0, nil) }},
	{"empty blob", func(c *content) {
		c.image("empty", "empty blob", 1, map[string]any{"config": c.blob("application/vnd.oci.empty.v1+json", nil)})
	}},
	{"large manifest", func(c *content) {
		notes := map[string]string{}
		for i := range 390 {
			notes[fmt.Sprint("large-annotation-", i)] = strings.Repeat("A", 10_000)
		}
		c.image("large", "large manifest", 1, map[string]any{"annotations": notes})
	}},
	{"index", func(c *content) { c.index("index", nil, c.image("", "one", 1, nil), c.image("", "two", 2, nil)) }},
	{"nested index", func(c *content) {
		inner := c.index("", nil, c.image("", "inner", 1, nil))
		c.index("nested", nil, inner, c.index("", map[string]any{"annotations": map[string]string{"n": "2"}}, c.image("", "other", 1, nil)))
	}},
	{"empty index", func(c *content) { c.index("empty-index", nil) }},
	{"artifact", func(c *content) { c.artifact("artifact", "application/vnd.example.one", nil) }},
	{"artifact index", func(c *content) {
		c.index("artifact-index", map[string]any{"artifactType": "application/vnd.example.list"}, c.artifact("", "application/vnd.example.one", nil))
	}},
	{"artifacts with subject", func(c *content) {
		subject := c.image("image", "subject", 1, nil)
		c.image("", "referrer without artifact type", 1, map[string]any{"subject": subject})
		c.artifact("tagged", "application/vnd.example.one", map[string]any{"subject": subject, "annotations": map[string]string{"a": "1"}})
		c.artifact("", "application/vnd.example.two", map[string]any{"subject": subject, "annotations": map[string]string{"b": "2"}})
	}},
	{"index with subject", func(c *content) {
		subject := c.index("index", nil)
		c.index("tagged-index", map[string]any{"artifactType": "application/vnd.example.one", "subject": subject})
		c.index("", map[string]any{"subject": subject, "annotations": map[string]string{"c": "3"}})
	}},
	{"missing subject", func(c *content) {
		missing := gatehouse.Descriptor{MediaType: manifestType, Digest: c.digest([]byte("never pushed")), Size: 123}
		c.artifact("missing-subject", "application/vnd.example.one", map[string]any{"subject": missing})
	}},
	{"data field", func(c *content) {
		config := c.blob("application/vnd.oci.empty.v1+json", []byte("{}"))
		config.Data = []byte("{}")
		c.image("data", "data field", 1, map[string]any{"config": config})
	}},
	{"non-distributable layers", func(c *content) {
		away := gatehouse.Descriptor{MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Digest: c.digest([]byte("elsewhere")), Size: 12345, URLs: []string{"https://store.example.com/x"}}
		here := c.blob("application/vnd.oci.image.layer.v1.tar", []byte("a layer that is here"))
		c.image("away", "non-distributable", 0, map[string]any{"layers": []gatehouse.Descriptor{away, here}})
	}},
	{"custom fields", func(c *content) {
		c.image("custom", "custom", 1, map[string]any{"org.example.field": map[string]any{"x": []int{1, 2}}})
	}},
}

func runLifecycles(t *testing.T, target Target) {
	for _, algorithm := range []string{gatehouse.SHA256, gatehouse.SHA512} {
		for _, kind := range contents {
			t.Run(algorithm+" "+kind.name, func(t *testing.T) {
				c := &content{t: t, target: target, algorithm: algorithm, repo: "suite/lifecycle"}
				kind.make(c)
				c.push()
				c.list()
				c.pull()
				c.referrers()
				c.delete()
				target.Client.CloseIdleConnections()
			})
		}
	}
}

// call sends one request and wants one of the codes.
func (c *content) call(method, target string, header http.Header, body []byte, codes ...int) (*http.Response, []byte) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.target.URL+target, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if header != nil {
		r.Header = header
	}
	r.SetBasicAuth("admin", c.target.Passwords["admin"])
	answer, err := c.target.Client.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(io.LimitReader(answer.Body, bodySizeMax))
	if err != nil {
		c.t.Fatal(err)
	}
	if !slices.Contains(codes, answer.StatusCode) {
		c.t.Fatalf("%s %s: %s, want %v\n%s", method, target, answer.Status, codes, clip(got))
	}
	return answer, got
}

// withQuery adds a parameter to a Location.
func withQuery(location, key, value string) string {
	sep := "?"
	if strings.Contains(location, "?") {
		sep = "&"
	}
	return location + sep + url.Values{key: {value}}.Encode()
}

// pushBlob pushes by one of the five ways, each in its turn.
func (c *content) pushBlob(b blob) {
	c.t.Helper()
	uploads := "/v2/" + c.repo + "/blobs/uploads/"
	octets := func() http.Header { return http.Header{"Content-Type": {"application/octet-stream"}} }
	var answer *http.Response
	start := func() string {
		answer, _ := c.call("POST", uploads, nil, nil, 202)
		return answer.Header.Get("Location")
	}
	way := c.apis % 5
	c.apis++
	switch way {
	case 0: // a single POST
		answer, _ = c.call("POST", withQuery(uploads, "digest", string(b.digest)), octets(), b.data, 201)
	case 1: // POST, PUT
		answer, _ = c.call("PUT", withQuery(start(), "digest", string(b.digest)), octets(), b.data, 201)
	case 2: // a stream
		patched, _ := c.call("PATCH", start(), octets(), b.data, 202)
		answer, _ = c.call("PUT", withQuery(patched.Header.Get("Location"), "digest", string(b.digest)), octets(), nil, 201)
	default: // chunks, each tried out of order first; the last one by PUT in way 4
		answer = c.pushChunks(start(), b, way == 4)
	}
	if got, want := answer.Header.Get("Docker-Content-Digest"), string(b.digest); got != want {
		c.t.Errorf("Docker-Content-Digest %s, want %s", got, want)
	}
	if _, got := c.call("GET", answer.Header.Get("Location"), nil, nil, 200); !bytes.Equal(got, b.data) {
		c.t.Errorf("the Location of blob %s has %d bytes, want %d", b.digest, len(got), len(b.data))
	}
}

func (c *content) pushChunks(location string, b blob, lastByPut bool) *http.Response {
	c.t.Helper()
	size := len(b.data)/3 + 1
	for first := 0; first < len(b.data); first += size {
		end := min(first+size, len(b.data))
		header := func(a, z int) http.Header {
			return http.Header{"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("%d-%d", a, z-1)}}
		}
		wrong := (first + size) % (2 * size)
		refused, _ := c.call("PATCH", location, header(wrong, wrong+end-first), b.data[first:end], 416)
		status, _ := c.call("GET", refused.Header.Get("Location"), nil, nil, 204)
		if want := fmt.Sprintf("0-%d", max(0, first-1)); status.Header.Get("Range") != want {
			c.t.Errorf("Range %s after a chunk out of order, want %s", status.Header.Get("Range"), want)
		}
		location = status.Header.Get("Location")
		if lastByPut && end == len(b.data) {
			answer, _ := c.call("PUT", withQuery(location, "digest", string(b.digest)), header(first, end), b.data[first:end], 201)
			return answer
		}
		patched, _ := c.call("PATCH", location, header(first, end), b.data[first:end], 202)
		location = patched.Header.Get("Location")
	}
	answer, _ := c.call("PUT", withQuery(location, "digest", string(b.digest)), nil, nil, 201)
	return answer
}

// push pushes all, each manifest by digest and then by tag. A tag of a sha512
// manifest goes with its digest, because a tag alone means sha256.
func (c *content) push() {
	c.t.Helper()
	for _, b := range c.blobs {
		c.pushBlob(b)
	}
	for _, m := range c.manifests {
		target := "/v2/" + c.repo + "/manifests/" + string(m.digest)
		if m.tag != "" && c.algorithm == gatehouse.SHA512 {
			target = withQuery(target, "tag", m.tag)
		}
		c.putManifest(target, m)
		if m.tag != "" && c.algorithm == gatehouse.SHA256 {
			c.putManifest("/v2/"+c.repo+"/manifests/"+m.tag, m)
		}
	}
}

func (c *content) putManifest(target string, m manifest) {
	c.t.Helper()
	answer, _ := c.call("PUT", target, http.Header{"Content-Type": {m.mediaType}}, m.body, 201)
	if got := answer.Header.Get("OCI-Subject"); got != string(m.subject) {
		c.t.Errorf("OCI-Subject %q, want %q", got, m.subject)
	}
	if _, query, _ := strings.Cut(target, "?"); query != "" && answer.Header.Get("OCI-Tag") != m.tag {
		c.t.Errorf("OCI-Tag %q, want %q", answer.Header.Get("OCI-Tag"), m.tag)
	}
	_, got := c.call("GET", answer.Header.Get("Location"), nil, nil, 200)
	if !bytes.Equal(got, m.body) || answer.Header.Get("Docker-Content-Digest") != string(m.digest) {
		c.t.Errorf("PUT %s: %s with %d bytes, want %s with %d", target, answer.Header.Get("Docker-Content-Digest"), len(got), m.digest, len(m.body))
	}
}

func (c *content) list() {
	c.t.Helper()
	var tags struct{ Tags []string }
	_, body := c.call("GET", "/v2/"+c.repo+"/tags/list", nil, nil, 200)
	if err := json.Unmarshal(body, &tags); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range c.manifests {
		if m.tag != "" && !slices.Contains(tags.Tags, m.tag) {
			c.t.Errorf("tags %v, want %s as well", tags.Tags, m.tag)
		}
	}
}

func (c *content) pull() {
	c.t.Helper()
	same := func(target string, digest gatehouse.Digest, mediaType string, want []byte) {
		c.t.Helper()
		head, _ := c.call("HEAD", target, nil, nil, 200)
		get, got := c.call("GET", target, nil, nil, 200)
		for _, answer := range []*http.Response{head, get} {
			if answer.ContentLength != int64(len(want)) || answer.Header.Get("Docker-Content-Digest") != string(digest) || answer.Header.Get("Content-Type") != mediaType {
				c.t.Errorf("%s %s: %d bytes, %v", answer.Request.Method, target, answer.ContentLength, answer.Header)
			}
		}
		if !bytes.Equal(got, want) {
			c.t.Errorf("%s: other bytes", target)
		}
	}
	for _, b := range c.blobs {
		same("/v2/"+c.repo+"/blobs/"+string(b.digest), b.digest, "application/octet-stream", b.data)
	}
	for _, m := range c.manifests {
		same("/v2/"+c.repo+"/manifests/"+string(m.digest), m.digest, m.mediaType, m.body)
		if m.tag != "" {
			same("/v2/"+c.repo+"/manifests/"+m.tag, m.digest, m.mediaType, m.body)
		}
	}
}

func (c *content) referrers() {
	c.t.Helper()
	want := map[gatehouse.Digest][]gatehouse.Descriptor{}
	for _, m := range c.manifests {
		if m.subject != "" {
			want[m.subject] = append(want[m.subject], m.listed)
		}
	}
	for subject, all := range want {
		filters := map[string]bool{"": true}
		for _, d := range all {
			filters[d.ArtifactType] = true
		}
		for artifactType := range filters {
			expect := slices.DeleteFunc(slices.Clone(all), func(d gatehouse.Descriptor) bool { return artifactType != "" && d.ArtifactType != artifactType })
			c.referrersOf(subject, artifactType, expect)
		}
	}
}

func (c *content) referrersOf(subject gatehouse.Digest, artifactType string, want []gatehouse.Descriptor) {
	c.t.Helper()
	target := "/v2/" + c.repo + "/referrers/" + string(subject)
	if artifactType != "" {
		target = withQuery(target, "artifactType", artifactType)
	}
	answer, body := c.call("GET", target, nil, nil, 200)
	if got := answer.Header.Get("OCI-Filters-Applied"); (got == "artifactType") != (artifactType != "") {
		c.t.Errorf("%s: OCI-Filters-Applied %q", target, got)
	}
	var list struct{ Manifests []gatehouse.Descriptor }
	if err := json.Unmarshal(body, &list); err != nil {
		c.t.Fatal(err)
	}
	got, _ := json.Marshal(list.Manifests)
	expect, _ := json.Marshal(want)
	if string(got) != string(expect) {
		c.t.Errorf("%s:\n%s\nwant\n%s", target, got, expect)
	}
}

// delete removes all in the order in which nothing needs it any more; what was
// deleted is gone when the answer comes.
func (c *content) delete() {
	c.t.Helper()
	gone := func(target string) {
		c.t.Helper()
		c.call("DELETE", target, nil, nil, 202)
		c.call("HEAD", target, nil, nil, 404)
		c.call("DELETE", target, nil, nil, 404)
	}
	for _, m := range c.manifests {
		if m.tag != "" {
			gone("/v2/" + c.repo + "/manifests/" + m.tag)
		}
	}
	for _, m := range slices.Backward(c.manifests) {
		gone("/v2/" + c.repo + "/manifests/" + string(m.digest))
	}
	for _, b := range c.blobs {
		gone("/v2/" + c.repo + "/blobs/" + string(b.digest))
	}
	for _, m := range c.manifests {
		if m.subject != "" {
			c.referrersOf(m.subject, "", []gatehouse.Descriptor{})
		}
	}
}
