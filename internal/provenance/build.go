package provenance

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Build is SLSA provenance: who built it, of what, and how.
type Build struct {
	Version string // of the predicate: "v0.2" or "v1"
	Builder string // builder.id: what the builder calls itself
	Type    string // buildType
	// Sources are all repositories that the build was told to build from, by its
	// parameters; dependencies are not among them.
	Sources    []Source
	EntryPoint string // the workflow or the file that says how to build
	Invocation string // the builder's id of the run
	StartedAt  time.Time
	FinishedAt time.Time
	// Dependencies are what was fetched: materials, resolvedDependencies.
	Dependencies []Dependency
	// ClaimedLevel is the SLSA build level that the builder's name claims, 0 where it
	// claims none. It is worth nothing: see Level.
	ClaimedLevel int
}

// Source is where source code came from.
type Source struct {
	URI        string
	Repository string // HOST/PATH, "" where the URI is none of a repository
	Ref        string // refs/heads/main
	Commit     string // hexadecimal
}

// Dependency is something that the build used.
type Dependency struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// LevelMax is the highest level of SLSA's build track.
const LevelMax = 3

var claimed = regexp.MustCompile(`(?i)slsa[-_]?([1-4])\b`)

func build02(b []byte) (*Build, error) {
	var p struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		BuildType  string `json:"buildType"`
		Invocation struct {
			ConfigSource reference `json:"configSource"`
		} `json:"invocation"`
		Metadata struct {
			InvocationID string `json:"buildInvocationId"` // "buildInvocationID" in cosign; JSON in Go knows no difference
			Started      string `json:"buildStartedOn"`
			Finished     string `json:"buildFinishedOn"`
		} `json:"metadata"`
		Materials []Dependency `json:"materials"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, unreadable("the SLSA provenance v0.2", err)
	}
	out := &Build{
		Version: "v0.2", Builder: clip(p.Builder.ID), Type: clip(p.BuildType), EntryPoint: clip(p.Invocation.ConfigSource.EntryPoint),
		Invocation: clip(p.Metadata.InvocationID), StartedAt: at(p.Metadata.Started), FinishedAt: at(p.Metadata.Finished), Dependencies: p.Materials,
	}
	out.source(p.Invocation.ConfigSource)
	return out, out.check()
}

func build1(b []byte) (*Build, error) {
	var p struct {
		Definition struct {
			Type         string                     `json:"buildType"`
			Parameters   map[string]json.RawMessage `json:"externalParameters"`
			Dependencies []Dependency               `json:"resolvedDependencies"`
		} `json:"buildDefinition"`
		Run struct {
			Builder struct {
				ID string `json:"id"`
			} `json:"builder"`
			Metadata struct {
				InvocationID string `json:"invocationId"`
				Started      string `json:"startedOn"`
				Finished     string `json:"finishedOn"`
			} `json:"metadata"`
		} `json:"runDetails"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, unreadable("the SLSA provenance v1", err)
	}
	out := &Build{
		Version: "v1", Builder: clip(p.Run.Builder.ID), Type: clip(p.Definition.Type), Invocation: clip(p.Run.Metadata.InvocationID),
		StartedAt: at(p.Run.Metadata.Started), FinishedAt: at(p.Run.Metadata.Finished), Dependencies: p.Definition.Dependencies,
	}
	out.parameters(p.Definition.Parameters)
	return out, out.check()
}

// reference is a source in the forms that build types have for it.
type reference struct {
	URI        string            `json:"uri"`        // SLSA, BuildKit
	Repository string            `json:"repository"` // GitHub, Google Cloud Build, Tekton
	Ref        string            `json:"ref"`
	Path       string            `json:"path"`
	EntryPoint string            `json:"entryPoint"`
	Digest     map[string]string `json:"digest"`
}

// parameters finds the sources in the external parameters of a v1 build. Build types
// have names of their own for them; all that are there count.
func (b *Build) parameters(p map[string]json.RawMessage) {
	for _, name := range []string{"sourceToBuild", "source", "workflow", "buildConfigSource", "configSource"} {
		raw, ok := p[name]
		if !ok {
			continue
		}
		var r reference
		if json.Unmarshal(raw, &r.URI) != nil { // GitLab has a string
			r.URI = ""
			if json.Unmarshal(raw, &r) != nil {
				r = reference{URI: "unreadable:" + name} // it is there, and no policy names it
			}
		}
		b.source(r)
		if name == "sourceToBuild" {
			continue // says what, the configuration says how
		}
		if entry := first(r.Path, r.EntryPoint); b.EntryPoint == "" {
			b.EntryPoint = clip(entry)
		}
	}
	var entry string
	if b.EntryPoint == "" && json.Unmarshal(p["entryPoint"], &entry) == nil {
		b.EntryPoint = clip(entry)
	}
}

func (b *Build) source(r reference) {
	uri := first(r.URI, r.Repository)
	if uri == "" {
		return
	}
	s := Source{URI: clip(uri)}
	s.Repository, s.Ref = Repository(uri)
	s.Commit = commit(r.Digest)
	for _, d := range b.Dependencies {
		if s.Commit != "" {
			break
		}
		if repository, _ := Repository(d.URI); repository != "" && repository == s.Repository {
			s.Commit = commit(d.Digest)
		}
	}
	refs := []string{s.Ref}
	switch ref := clip(r.Ref); {
	case ref == "" || ref == s.Ref:
	case s.Ref == "":
		refs[0] = ref
	default:
		refs = append(refs, ref) // both are said, and neither hides the other
	}
	for _, s.Ref = range refs {
		if !slices.Contains(b.Sources, s) {
			b.Sources = append(b.Sources, s)
		}
	}
}

func commit(digest map[string]string) string {
	return clip(first(digest["gitCommit"], first(digest["sha1"], digest["sha256"])))
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (b *Build) check() error {
	if len(b.Dependencies) > artifactsMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the provenance lists %d dependencies, %d at most", len(b.Dependencies), artifactsMax)
	}
	if b.Builder == "" {
		return invalid("the provenance names no builder (builder.id)")
	}
	if m := claimed.FindStringSubmatch(b.Builder); m != nil {
		b.ClaimedLevel = int(m[1][0] - '0')
	}
	return nil
}

// Repository reads the address of a source repository in any of the forms that
// builders write: git+https://HOST/PATH@REF, https://HOST/PATH.git#REF,
// git@HOST:PATH, HOST/PATH. It returns HOST/PATH with the host in lower case, and the
// ref; "" for what is no such address. Two addresses of one repository give the same.
func Repository(uri string) (repository, ref string) {
	if len(uri) > textMax || strings.ContainsAny(uri, " \t\r\n\x00\\") {
		return "", ""
	}
	uri = strings.TrimPrefix(uri, "git+")
	if rest, ok := strings.CutPrefix(uri, "git@"); ok && !strings.Contains(uri, "://") {
		host, path, _ := strings.Cut(rest, ":")
		uri = "ssh://" + host + "/" + path
	}
	if !strings.Contains(uri, "://") {
		uri = "https://" + uri
	}
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Opaque != "" || !slices.Contains([]string{"https", "http", "git", "ssh"}, u.Scheme) {
		return "", ""
	}
	path, ref, _ := strings.Cut(u.Path, "@")
	switch {
	case ref == "":
		ref = u.Fragment
	case u.Fragment != "" && u.Fragment != ref:
		return "", "" // two refs
	}
	path = strings.TrimSuffix(strings.TrimRight(path, "/"), ".git")
	if path = strings.TrimLeft(path, "/"); path == "" {
		return "", ""
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return "", ""
		}
	}
	return strings.ToLower(u.Host) + "/" + path, clip(ref)
}
