package report

import (
	"cmp"
	"io"
	"strings"
	"time"
)

// The body of GitHub's "create a snapshot of dependencies" (REST API, dependency
// submission).
type (
	snapshot struct {
		Version   int                         `json:"version"`
		SHA       string                      `json:"sha"`
		Ref       string                      `json:"ref"`
		Job       snapshotJob                 `json:"job"`
		Detector  snapshotDetector            `json:"detector"`
		Scanned   string                      `json:"scanned"`
		Metadata  map[string]any              `json:"metadata,omitempty"`
		Manifests map[string]snapshotManifest `json:"manifests"`
	}
	snapshotJob struct {
		ID         string `json:"id"`
		Correlator string `json:"correlator"`
	}
	snapshotDetector struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		URL     string `json:"url"`
	}
	snapshotManifest struct {
		Name     string                     `json:"name"`
		File     *snapshotFile              `json:"file,omitempty"`
		Resolved map[string]snapshotPackage `json:"resolved"`
	}
	snapshotFile struct {
		Location string `json:"source_location"`
	}
	snapshotPackage struct {
		PURL         string         `json:"package_url"`
		Relationship string         `json:"relationship"`
		Scope        string         `json:"scope"`
		Metadata     map[string]any `json:"metadata,omitempty"`
	}
)

func writeGitHub(w io.Writer, r Report, o Options) error {
	s := snapshot{
		SHA: o.env("GITHUB_SHA"), Ref: o.env("GITHUB_REF"), Scanned: o.Now.UTC().Format(time.RFC3339),
		Job:       snapshotJob{ID: o.env("GITHUB_RUN_ID"), Correlator: strings.Trim(o.env("GITHUB_WORKFLOW")+"_"+o.env("GITHUB_JOB"), "_")},
		Detector:  snapshotDetector{Name: "gatehouse", Version: cmp.Or(o.Version, "unknown"), URL: informationURI},
		Metadata:  map[string]any{"gatehouse:target": r.Target.Reference, "gatehouse:complete": r.Complete},
		Manifests: map[string]snapshotManifest{},
	}
	if r.Target.Digest != "" {
		s.Metadata["gatehouse:digest"] = string(r.Target.Digest)
	}
	if r.Target.Platform != "" {
		s.Metadata["gatehouse:platform"] = r.Target.Platform
	}
	if !r.Complete { // GitHub takes short scalars only
		s.Metadata["gatehouse:incomplete"] = clip(strings.Join(r.IncompleteReasons, "; "), sarifShortMax)
	}
	for _, p := range r.Packages {
		g := groupOf(r, p)
		m, ok := s.Manifests[g.name]
		if !ok {
			m = snapshotManifest{Name: g.name, Resolved: map[string]snapshotPackage{}}
			if g.class == "lang-pkgs" && !g.paths {
				m.File = &snapshotFile{Location: p.Path}
			}
			s.Manifests[g.name] = m
		}
		out := snapshotPackage{PURL: p.PURL, Relationship: "direct", Scope: "runtime"}
		if g.paths && p.Path != "" {
			out.Metadata = map[string]any{"source_location": p.Path}
		}
		// Several versions of one package are several dependencies.
		m.Resolved[p.Name+"@"+p.Version] = out
	}
	return encode(w, s)
}
