package contenttest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
)

var listTests = []test{
	{"tags by pages in byte order", listTags},
	{"repositories by pages in byte order", listRepos},
	{"referrers", listReferrers},
	{"referrers by pages", listReferrerPages},
	{"a fallback tag tells of referrers", listFallback},
	{"a fallback tag of a sha512 subject", listFallbackSHA512},
	{"the repositories of a blob", listBlobRepos},
}

// pages collects a list in pages of n.
func pages[T any](s *Suite, n int, after func(T) string, list func(after string, n int) ([]T, error)) []T {
	s.Helper()
	var out []T
	last := ""
	for {
		page, err := list(last, n)
		s.must(err)
		if len(page) > n {
			s.Fatalf("a page of %d has %d entries", n, len(page))
		}
		out = append(out, page...)
		if len(page) < n {
			return out
		}
		last = after(page[len(page)-1])
	}
}

func listTags(s *Suite) {
	_, err := s.C.Tags(s.Context(), "a/b", "", 10)
	s.WantError(err, gatehouse.CodeNotFound, "NAME_UNKNOWN")
	want := []string{"B", "Z", "_x", "a", "a-1", "a.1", "a1", "latest"}
	s.Push("a/b", app, "latest", "a1", "Z", "a.1", "B", "_x", "a", "a-1")
	s.Push("a/c", app, "other")
	s.PushBlob("only/blobs", "x")
	slices.Sort(want)
	for n := 1; n <= len(want)+1; n++ {
		got := pages(s, n, func(t string) string { return t }, func(after string, n int) ([]string, error) { return s.C.Tags(s.Context(), "a/b", after, n) })
		if diff := cmp.Diff(want, got); diff != "" {
			s.Fatalf("tags in pages of %d (-want +got):\n%s", n, diff)
		}
	}
	for _, n := range []int{0, -1} {
		got, err := s.C.Tags(s.Context(), "a/b", "", n)
		s.must(err)
		if len(got) != 0 {
			s.Errorf("Tags(n=%d) = %v", n, got)
		}
	}
	got, err := s.C.Tags(s.Context(), "a/b", "zzz", 10)
	s.must(err)
	if len(got) != 0 {
		s.Errorf("tags after the last: %v", got)
	}
	s.WantTags("only/blobs")
}

func listRepos(s *Suite) {
	want := []gatehouse.Repo{"a", "a-b", "a/b", "a0", "b"}
	for _, repo := range []gatehouse.Repo{"b", "a/b", "a0", "a", "a-b"} {
		s.Push(repo, app)
	}
	s.Start("never/committed", "")
	for n := 1; n <= len(want)+1; n++ {
		got := pages(s, n, func(r gatehouse.Repo) string { return string(r) }, func(after string, n int) ([]gatehouse.Repo, error) { return s.C.Repos(s.Context(), after, n) })
		if diff := cmp.Diff(want, got); diff != "" {
			s.Fatalf("repositories in pages of %d (-want +got):\n%s", n, diff)
		}
	}
}

const (
	sbomType = "application/spdx+json"
	sigType  = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

func listReferrers(s *Suite) {
	// The subject may come last, or never.
	subject := Describe(OCIManifest, string(app.Body()))
	none, err := s.C.Referrers(s.Context(), "a/b", subject.Digest, "", "", 10)
	s.must(err)
	if len(none) != 0 {
		s.Fatalf("an unknown repository has referrers: %v", none)
	}
	sbom := Image{Config: "{}", ConfigType: sbomType, Subject: &subject, Annotations: map[string]string{"who": "sbom"}}
	sig := Image{Config: "{}", ConfigType: "application/vnd.oci.empty.v1+json", ArtifactType: sigType, Subject: &subject}
	want := []gatehouse.Descriptor{
		{MediaType: OCIManifest, Digest: gatehouse.DigestOf(sbom.Body()), Size: int64(len(sbom.Body())), ArtifactType: sbomType, Annotations: sbom.Annotations},
		{MediaType: OCIManifest, Digest: gatehouse.DigestOf(sig.Body()), Size: int64(len(sig.Body())), ArtifactType: sigType},
	}
	s.Push("a/b", sbom)
	s.Push("a/b", sig)
	s.Push("a/c", sig)
	s.Push("a/b", app, "v1")
	for _, c := range []struct {
		artifactType string
		want         []gatehouse.Descriptor
	}{{"", want}, {sbomType, want[:1]}, {sigType, want[1:]}, {"application/none", nil}} {
		got, err := s.C.Referrers(s.Context(), "a/b", subject.Digest, c.artifactType, "", 10)
		s.must(err)
		if diff := cmp.Diff(c.want, got); diff != "" {
			s.Errorf("referrers of type %q (-want +got):\n%s", c.artifactType, diff)
		}
	}
	m, err := s.C.Manifest(s.Context(), "a/b", want[0].Digest)
	s.must(err)
	if m.Subject != subject.Digest {
		s.Errorf("the subject is %q, want %q", m.Subject, subject.Digest)
	}
	// A referrer outlives its subject, and goes when it is deleted itself.
	s.must(s.C.DeleteManifest(s.Context(), Pusher, "a/b", subject.Digest))
	s.must(s.C.DeleteManifest(s.Context(), Pusher, "a/b", want[0].Digest))
	got, err := s.C.Referrers(s.Context(), "a/b", subject.Digest, "", "", 10)
	s.must(err)
	if diff := cmp.Diff(want[1:], got); diff != "" {
		s.Errorf("referrers after a deletion (-want +got):\n%s", diff)
	}
}

func listReferrerPages(s *Suite) {
	subject := s.Push("a/b", app)
	var want []gatehouse.Digest
	for i := range 7 {
		sig := Image{Config: "{}", ArtifactType: sigType, Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(i)}}
		want = append(want, s.Push("a/b", sig).Digest)
	}
	for n := 1; n <= 8; n++ {
		list := pages(s, n, func(d gatehouse.Descriptor) string { return string(d.Digest) }, func(after string, n int) ([]gatehouse.Descriptor, error) {
			return s.C.Referrers(s.Context(), "a/b", subject.Digest, sigType, gatehouse.Digest(after), n)
		})
		var got []gatehouse.Digest
		for _, d := range list {
			got = append(got, d.Digest)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			s.Fatalf("referrers in pages of %d, oldest first (-want +got):\n%s", n, diff)
		}
	}
}

// listFallback pushes what a client does that does not trust the registry to
// keep the list of referrers, or what a tool does that moves images from a
// registry that did not (distribution-spec, "Referrers Tag Schema").
func listFallback(s *Suite) {
	subject := s.Push("a/b", app, "v1")
	sig := Image{Config: "{}", ArtifactType: sigType, Subject: &subject}
	named := s.Push("a/b", sig)
	loose := s.Push("a/b", Image{Config: "{}", ConfigType: sbomType}) // names no subject
	other := s.Push("a/b", Image{Config: "{}", ConfigType: sbomType, Annotations: map[string]string{"n": "2"}})
	tag := subject.Digest.FallbackTag()
	want := func(when string, artifactType string, want ...gatehouse.Descriptor) {
		s.Helper()
		for n := 1; n <= len(want)+1; n++ {
			list := pages(s, n, func(d gatehouse.Descriptor) string { return string(d.Digest) }, func(after string, n int) ([]gatehouse.Descriptor, error) {
				return s.C.Referrers(s.Context(), "a/b", subject.Digest, artifactType, gatehouse.Digest(after), n)
			})
			var got, digests []gatehouse.Digest
			for _, d := range list {
				got = append(got, d.Digest)
			}
			for _, d := range want {
				digests = append(digests, d.Digest)
			}
			if diff := cmp.Diff(digests, got); diff != "" {
				s.Errorf("referrers %s in pages of %d (-want +got):\n%s", when, n, diff)
			}
		}
	}
	want("before the tag", "", named)
	// Each once, however often it is told of, and never the subject itself.
	body := IndexBody(OCIIndex, loose, named, subject, loose)
	m, err := s.Put("a/b", OCIIndex, body, tag)
	s.must(err)
	s.WantManifest("a/b", tag, m.Descriptor, body)
	want("told by the tag", "", named, loose)
	want("of one type", sbomType, loose)
	_, err = s.Put("a/b", OCIIndex, IndexBody(OCIIndex, other), tag)
	s.must(err)
	want("when the tag has moved", "", named, other)
	_, err = s.Put("a/c", OCIIndex, IndexBody(OCIIndex), tag)
	s.must(err)
	want("when it moved in another repository", "", named, other)
	s.must(s.C.DeleteTag(s.Context(), Pusher, "a/b", tag))
	want("when the tag has gone", "", named)
	// An image under the tag tells of nothing.
	s.Push("a/b", app, tag)
	want("when the tag names an image", "", named)
}

// listFallbackSHA512: tags have no room for a whole sha512 (distribution-spec:
// the first 64 digits).
func listFallbackSHA512(s *Suite) {
	subject := gatehouse.Digest("sha512:" + strings.Repeat("0123456789abcdef", 8))
	sbom := s.Push("a/b", Image{Config: "{}", ConfigType: sbomType})
	_, err := s.Put("a/b", OCIIndex, IndexBody(OCIIndex, sbom), "sha512-"+strings.Repeat("0123456789abcdef", 4))
	s.must(err)
	got, err := s.C.Referrers(s.Context(), "a/b", subject, "", "", 10)
	s.must(err)
	if len(got) != 1 || got[0].Digest != sbom.Digest {
		s.Errorf("referrers of a sha512 subject by its fallback tag: %v", got)
	}
}

func listBlobRepos(s *Suite) {
	d := s.PushBlob("a/b", "shared")
	s.PushBlob("a/c", "shared")
	s.PushBlob("a/d", "alone")
	for n, want := range []int{0, 1, 2, 2} {
		got, err := s.C.BlobRepos(s.Context(), d.Digest, n)
		s.must(err)
		slices.Sort(got)
		if len(got) != want || len(got) == 2 && (got[0] != "a/b" || got[1] != "a/c") {
			s.Errorf("at most %d repositories of a blob in two: %v", n, got)
		}
	}
	got, err := s.C.BlobRepos(s.Context(), gatehouse.DigestOf([]byte("never")), 10)
	s.must(err)
	if len(got) != 0 {
		s.Errorf("repositories of an unknown blob: %v", got)
	}
	_, err = s.C.BlobRepos(s.Context(), "sha256:1", 10)
	s.WantError(err, gatehouse.CodeInvalid, "DIGEST_INVALID")
}
