package gatehouse

import (
	"encoding/json"
	"net/url"
	"strings"
)

// Inventory is what is inside one image: a function of its bytes and of the
// indexer's version only. It knows no advisory and no clock.
type Inventory struct {
	Subject  Digest    `json:"subject"` // the image manifest
	Indexer  string    `json:"indexer"` // name and version of the analyser set
	Distro   Distro    `json:"distro"`
	Packages []Package `json:"packages"` // visible in the uppermost layer, sorted by Path, Type, Name, Version
	// Findings need no advisory: secrets and misconfiguration, of files and of
	// the image configuration.
	Findings []Finding `json:"findings,omitempty"`
	// Files are the visible files that lists of malware may name: executables,
	// scripts and archives.
	Files []FileDigest `json:"files,omitempty"`
	// Layers tells where each layer comes from, lowest first.
	Layers     []LayerOrigin `json:"layers,omitempty"`
	Complete   bool          `json:"complete"`
	Incomplete []string      `json:"incompleteReasons,omitempty"` // why not Complete, one sentence each
}

// LayerOrigin says how one layer of an image came about.
type LayerOrigin struct {
	DiffID Digest `json:"diffID"`
	// CreatedBy is the step of the image's history, as its author has it.
	CreatedBy string `json:"createdBy,omitempty"`
	// Base: the layer belongs to the base image, as far as that can be told.
	Base bool `json:"base,omitempty"`
}

// Origin returns where the layer with this diffID comes from: the step that
// made it, and whether the base image has it already. ok is false where the
// image has no such layer.
func (inv Inventory) Origin(layer Digest) (origin LayerOrigin, ok bool) {
	for _, l := range inv.Layers {
		if l.DiffID == layer && layer != "" {
			return l, true
		}
	}
	return LayerOrigin{}, false
}

// FileDigest names one file by content.
type FileDigest struct {
	Path   string `json:"path"`   // relative to the root, cleaned, no leading slash
	Digest Digest `json:"digest"` // sha256
	Size   int64  `json:"size"`   // bytes
	Layer  Digest `json:"layer,omitempty"`
}

// Distro is the operating system as os-release(5) names it. The zero Distro
// means that the image has none (scratch, static binary).
type Distro struct {
	ID        string   `json:"id,omitempty"`        // "debian", "alpine", "almalinux"
	IDLike    []string `json:"idLike,omitempty"`    // "rhel", "fedora"
	VersionID string   `json:"versionID,omitempty"` // "12", "3.10.2"
	Name      string   `json:"name,omitempty"`      // PRETTY_NAME
	Codename  string   `json:"codename,omitempty"`  // VERSION_CODENAME
	// ContentSets are the repositories that a Red Hat image says it was built
	// from ("rhel-9-for-x86_64-baseos-eus-rpms__9_DOT_2"), sorted. They are no
	// part of os-release.
	ContentSets []string `json:"contentSets,omitempty"`
}

// Package is one installed package at one place.
type Package struct {
	// Type is the purl type: deb, apk, rpm, npm, pypi, golang, maven, gem, …
	Type string `json:"type"`
	Name string `json:"name"` // as installed: the binary package
	// Version is whole, as the ecosystem's own tool prints it, with epoch and
	// release where there are any ("1:1.2-3.el8").
	Version string `json:"version"`
	// Source and SourceVersion name the package that distribution advisories
	// speak of (dpkg Source, apk origin, rpm SOURCERPM); empty = the same.
	Source        string   `json:"source,omitempty"`
	SourceVersion string   `json:"sourceVersion,omitempty"`
	Arch          string   `json:"arch,omitempty"`       // of a Go program GOOS/GOARCH
	Modularity    string   `json:"modularity,omitempty"` // rpm MODULARITYLABEL
	Vendor        string   `json:"vendor,omitempty"`     // rpm VENDOR
	Licenses      []string `json:"licenses,omitempty"`
	// Path is the file that told of the package, relative to the image's root.
	Path string `json:"path,omitempty"`
	// Layer is the diffID of the layer that brought this version.
	Layer Digest `json:"layer,omitempty"`
	// Owner names the package of the operating system that installed this
	// package of a language, and with whose advisories its flaws are reported.
	Owner string `json:"owner,omitempty"`
}

// OS reports whether the operating system's package manager installed p.
func (p Package) OS() bool { return p.Type == "deb" || p.Type == "apk" || p.Type == "rpm" }

// SourceName returns the name that distribution advisories use.
func (p Package) SourceName() string {
	if p.Source != "" {
		return p.Source
	}
	return p.Name
}

// SourceVer returns the version that distribution advisories compare with.
func (p Package) SourceVer() string {
	if p.SourceVersion != "" {
		return p.SourceVersion
	}
	return p.Version
}

// PURL returns the package URL (purl-spec 1.0) of p inside distro.
func (p Package) PURL(distro Distro) string {
	name, version, namespace := p.Name, p.Version, ""
	q := url.Values{}
	switch p.Type {
	case "deb", "apk", "rpm":
		namespace = distro.ID
		if p.Arch != "" {
			q.Set("arch", p.Arch)
		}
		if distro.ID != "" && distro.VersionID != "" {
			q.Set("distro", distro.ID+"-"+distro.VersionID)
		}
		if epoch, rest, ok := strings.Cut(version, ":"); ok && p.Type == "rpm" {
			version = rest
			if epoch != "0" {
				q.Set("epoch", epoch)
			}
		}
	case "maven":
		if group, artifact, ok := strings.Cut(name, ":"); ok {
			namespace, name = group, artifact
		}
	case "pypi":
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	default:
		if i := strings.LastIndex(name, "/"); i >= 0 {
			namespace, name = name[:i], name[i+1:]
		}
	}
	var b strings.Builder
	b.WriteString("pkg:" + p.Type + "/")
	if namespace != "" {
		for part := range strings.SplitSeq(namespace, "/") {
			b.WriteString(purlEscape(part) + "/")
		}
	}
	b.WriteString(purlEscape(name))
	if version != "" {
		b.WriteString("@" + purlEscape(version))
	}
	if len(q) > 0 {
		b.WriteString("?" + q.Encode())
	}
	return b.String()
}

func purlEscape(s string) string {
	return strings.NewReplacer("+", "%2B", "@", "%40", "%3A", ":").Replace(url.PathEscape(s))
}

// LayerInventory is what one layer holds, keyed by its computed diffID and the
// indexer's version: never by a digest that the image's author only claims.
type LayerInventory struct {
	DiffID  Digest `json:"diffID"` // sha256 of the uncompressed tar, computed
	Blob    Digest `json:"blob"`   // sha256 of the bytes as stored, computed
	Size    int64  `json:"size"`   // of the uncompressed tar, in bytes
	Indexer string `json:"indexer"`
	// Sets, one per file that an extractor asked for, in path order. A file
	// that held nothing is an empty set: it still hides the one below it.
	Sets []PackageSet `json:"sets"`
	// Whiteouts are paths that this layer deletes from those below
	// (image-spec layer.md, ".wh."), Opaques are directories whose lower
	// contents it hides (".wh..wh..opq"), Replaced are non-directories other
	// than regular files (symlinks, devices), which hide what was below them.
	Whiteouts []string `json:"whiteouts,omitempty"`
	Opaques   []string `json:"opaques,omitempty"`
	Replaced  []string `json:"replaced,omitempty"`
	// Links are those of Replaced that are symbolic links above or at a package
	// database of an operating system, with the unknown places that they lead its
	// package manager to: files, and directories with a slash at the end.
	Links map[string][]string `json:"links,omitempty"`
	// Findings of the layer's files that need neither an advisory nor another
	// layer: secrets, modes. Package.Layer is empty here.
	Findings []Finding `json:"findings,omitempty"`
	// Files whose digests are kept; Layer is empty here.
	Files []FileDigest `json:"files,omitempty"`
	// Paths are all files and directories that the layer writes: names that
	// end in a zero byte, directories in a slash before it, compressed with
	// zstd. They tell which findings and files of lower layers are replaced.
	// Empty where there are too many to be kept.
	Paths []byte `json:"paths,omitempty"`
	// Licenses of Debian packages by name, as the copyright files in the layer
	// have them: the package database has none.
	Licenses map[string][]string `json:"licenses,omitempty"`
	// Complete is false when a limit was hit or a file could not be read.
	Complete   bool     `json:"complete"`
	Incomplete []string `json:"incompleteReasons,omitempty"`
}

// PackageSet is what one extractor read from one file, free of any knowledge
// of the image or distribution, so that equal files share it.
type PackageSet struct {
	Path      string    `json:"path"`             // relative to the root, cleaned, no leading slash
	Extractor string    `json:"extractor"`        // "dpkg", "apk", "rpm", "os-release", "npm", …
	Distro    *Distro   `json:"distro,omitempty"` // of an os-release file
	Packages  []Package `json:"packages"`         // Path, Layer and Owner are empty here
	// Owner names the package of the operating system that installed the file,
	// as a database in the same layer has it. It is no part of what the set holds.
	Owner string `json:"owner,omitempty"`
}

// Key names the set by what it holds (not by its path).
func (s PackageSet) Key() Digest {
	s.Path, s.Owner = "", ""
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a struct of strings always marshals
	}
	return DigestOf(b)
}

// ImageConfig is the part of an OCI or Docker image configuration
// (image-spec config.md) that the stages read.
type ImageConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
	Config       struct {
		User       string            `json:"User,omitempty"`
		Env        []string          `json:"Env,omitempty"`
		Entrypoint []string          `json:"Entrypoint,omitempty"`
		Cmd        []string          `json:"Cmd,omitempty"`
		Labels     map[string]string `json:"Labels,omitempty"`
		// ExposedPorts, Volumes: what counts is the keys ("22/tcp", "/data").
		ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
		Volumes      map[string]struct{} `json:"Volumes,omitempty"`
		// Healthcheck is Docker's; OCI does not know it.
		Healthcheck *struct {
			Test []string `json:"Test,omitempty"` // ["NONE"] turns an inherited one off
		} `json:"Healthcheck,omitempty"`
		OnBuild []string `json:"OnBuild,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []Digest `json:"diff_ids"`
	} `json:"rootfs"`
	History []HistoryStep `json:"history,omitempty"`
}

// HistoryStep is one step that made an image (image-spec config.md, history).
type HistoryStep struct {
	CreatedBy  string `json:"created_by,omitempty"`
	Comment    string `json:"comment,omitempty"`
	EmptyLayer bool   `json:"empty_layer,omitempty"`
}
