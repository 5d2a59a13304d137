package gatehouse

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"hash"
	"regexp"
	"strings"
)

// Digest names bytes by their hash, "sha256:<64 hex>" or "sha512:<128 hex>" in
// lower case (OCI image-spec, descriptor.md#digests). A Digest that did not
// come from [ParseDigest], [DigestOf] or [NewDigest] is not trusted to be well
// formed.
type Digest string

const (
	SHA256 = "sha256"
	SHA512 = "sha512"
)

// ParseDigest checks s and returns it as a Digest.
// Errors: CodeInvalid with detail DIGEST_INVALID.
func ParseDigest(s string) (Digest, error) {
	algo, encoded, ok := strings.Cut(s, ":")
	want := 0
	switch algo {
	case SHA256:
		want = sha256.Size * 2
	case SHA512:
		want = sha512.Size * 2
	}
	if !ok || want == 0 {
		return "", Errorf(CodeInvalid, "digest %q is not of the form sha256:HEX or sha512:HEX", clip(s)).WithDetail("DIGEST_INVALID")
	}
	if len(encoded) != want || strings.Trim(encoded, "0123456789abcdef") != "" {
		return "", Errorf(CodeInvalid, "digest %q: %s needs %d lower-case hex digits", clip(s), algo, want).WithDetail("DIGEST_INVALID")
	}
	return Digest(s), nil
}

// DigestOf returns the sha256 digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(SHA256 + ":" + hex.EncodeToString(sum[:]))
}

// NewDigest makes a Digest of a finished hash of the named algorithm.
func NewDigest(algorithm string, sum []byte) Digest {
	return Digest(algorithm + ":" + hex.EncodeToString(sum))
}

// Algorithm returns "sha256" or "sha512", the part before the colon.
func (d Digest) Algorithm() string { a, _, _ := strings.Cut(string(d), ":"); return a }

// Hex returns the part after the colon.
func (d Digest) Hex() string { _, h, _ := strings.Cut(string(d), ":"); return h }

// Short returns the first twelve hex digits, for people.
func (d Digest) Short() string {
	h := d.Hex()
	return h[:min(12, len(h))]
}

// FallbackTag is the tag under which clients keep the referrers of d in a
// registry that has no referrers API (distribution-spec, "Referrers Tag
// Schema"): of a long hash the first 64 digits.
func (d Digest) FallbackTag() string {
	const refLengthMax = 64
	h := d.Hex()
	return d.Algorithm() + "-" + h[:min(refLengthMax, len(h))]
}

// Hash returns a new hash of d's algorithm, nil for an unknown one.
func (d Digest) Hash() hash.Hash { return NewHash(d.Algorithm()) }

// NewHash returns a new hash of the named algorithm, nil for an unknown one.
func NewHash(algorithm string) hash.Hash {
	switch algorithm {
	case SHA256:
		return sha256.New()
	case SHA512:
		return sha512.New()
	}
	return nil
}

// Matches reports whether d is the digest of b.
func (d Digest) Matches(b []byte) bool {
	h := d.Hash()
	if h == nil {
		return false
	}
	h.Write(b)
	return NewDigest(d.Algorithm(), h.Sum(nil)) == d
}

// Repo is the path of a repository inside one registry, for example
// "production/web" (distribution-spec, <name>).
type Repo string

// RepoLengthMax is the longest repository path in bytes; registry host and
// path together stay under the 255 that clients allow.
const RepoLengthMax = 200

const tagLengthMax = 128 // bytes; the distribution-spec's

var (
	repoPattern = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]*$`)
	hostPattern = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?$`)
)

// ParseRepo checks s against the grammar of <name> in the distribution-spec.
// Errors: CodeInvalid with detail NAME_INVALID.
func ParseRepo(s string) (Repo, error) {
	if len(s) > RepoLengthMax || !repoPattern.MatchString(s) {
		return "", Errorf(CodeInvalid, "repository name %q is invalid", clip(s)).
			WithDetail("NAME_INVALID").
			WithHint("use lower-case letters, digits, and single . _ - between them, parts divided by /, %d characters at most", RepoLengthMax)
	}
	return Repo(s), nil
}

// ValidTag reports whether s follows the grammar of <reference> as a tag.
func ValidTag(s string) bool { return len(s) <= tagLengthMax && tagPattern.MatchString(s) }

// Ref names an image as people and Kubernetes do. At least one of Tag and
// Digest is set after [ParseRef]; with both, Digest decides.
type Ref struct {
	Registry string // host[:port]; "docker.io" where none was written
	Repo     Repo   // "library/alpine" for docker.io's short names
	Tag      string
	Digest   Digest
}

// ParseRef parses s as Docker does: "alpine" is "docker.io/library/alpine:latest".
// Errors: CodeInvalid.
func ParseRef(s string) (Ref, error) {
	var r Ref
	rest := s
	if name, digest, ok := strings.Cut(rest, "@"); ok {
		d, err := ParseDigest(digest)
		if err != nil {
			return Ref{}, Errorf(CodeInvalid, "image reference %q: %w", clip(s), err)
		}
		r.Digest, rest = d, name
	}
	if slash, colon := strings.LastIndex(rest, "/"), strings.LastIndex(rest, ":"); colon > slash {
		r.Tag, rest = rest[colon+1:], rest[:colon]
		if !ValidTag(r.Tag) {
			return Ref{}, Errorf(CodeInvalid, "image reference %q: tag %q is invalid", clip(s), clip(r.Tag))
		}
	}
	r.Registry = "docker.io"
	if host, path, ok := strings.Cut(rest, "/"); ok && isHost(host) {
		if !hostPattern.MatchString(host) {
			return Ref{}, Errorf(CodeInvalid, "image reference %q: registry host %q is invalid", clip(s), clip(host))
		}
		r.Registry, rest = host, path
		// A host is the same in any case, but a name that only its capitals make
		// a host would be a repository of docker.io without them.
		if lower := strings.ToLower(host); isHost(lower) {
			r.Registry = lower
		}
	}
	if r.Registry == "index.docker.io" {
		r.Registry = "docker.io"
	}
	if r.Registry == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	repo, err := ParseRepo(rest)
	if err != nil {
		return Ref{}, Errorf(CodeInvalid, "image reference %q: %w", clip(s), err)
	}
	r.Repo = repo
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r, nil
}

// ParseLocalRef parses a reference to something on a known server, where the
// registry may be left out: "team/app:v1" means repository team/app, and "app"
// means app. local says that it was left out. Errors: CodeInvalid.
func ParseLocalRef(s string) (r Ref, local bool, err error) {
	if host, _, ok := strings.Cut(s, "/"); ok && isHost(host) {
		r, err = ParseRef(s)
		return r, false, err
	}
	r, err = ParseRef("localhost/" + s)
	if err != nil {
		return Ref{}, false, Errorf(CodeInvalid, "%q is not REPOSITORY[:TAG][@DIGEST]", clip(s))
	}
	r.Registry = ""
	return r, true, nil
}

// isHost is Docker's rule: the first part names a registry if it contains a dot
// or a colon, is localhost, or has an upper-case letter (which no path may).
func isHost(part string) bool {
	return strings.ContainsAny(part, ".:") || part == "localhost" || strings.ToLower(part) != part
}

// Name returns registry and path, "docker.io/library/alpine".
func (r Ref) Name() string { return r.Registry + "/" + string(r.Repo) }

// String returns the full reference; parsing it again gives the same Ref.
func (r Ref) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// Descriptor points at content (OCI image-spec descriptor.md).
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Data         []byte            `json:"data,omitempty"`
	Platform     json.RawMessage   `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// clip keeps foreign text in messages short.
func clip(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
