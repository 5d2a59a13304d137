package lang

import (
	"encoding/json"
	"strings"
)

// composerLock reads the packages of composer.lock that are not for
// development.
func composerLock(content []byte, l *packageList) error {
	in := jsonDecoder(content)
	return object(in, func(key string) error {
		if key != "packages" {
			return skip(in)
		}
		return list(in, func() error {
			var p struct {
				Name    string          `json:"name"`
				Version string          `json:"version"`
				License json.RawMessage `json:"license"`
			}
			if err := value(in, &p); err != nil {
				return err
			}
			return l.add(p.Name, p.Version, npmLicenses(p.License)...)
		})
	})
}

// nugetLock reads packages.lock.json: packages by target framework.
func nugetLock(content []byte, l *packageList) error {
	in := jsonDecoder(content)
	return object(in, func(key string) error {
		if key != "dependencies" {
			return skip(in)
		}
		return object(in, func(string) error {
			return object(in, func(name string) error {
				var p struct {
					Type     string `json:"type"`
					Resolved string `json:"resolved"`
				}
				if err := value(in, &p); err != nil || p.Type == "Project" {
					return err
				}
				return l.add(name, p.Resolved)
			})
		})
	})
}

// nugetXML reads packages.config and the versions that a directory manages
// centrally.
func nugetXML(content []byte, l *packageList) error {
	type reference struct {
		Include string `xml:"Include,attr"`
		Update  string `xml:"Update,attr"`
		Version string `xml:"Version,attr"`
	}
	var file struct {
		Packages []struct {
			ID          string `xml:"id,attr"`
			Version     string `xml:"version,attr"`
			Development string `xml:"developmentDependency,attr"`
		} `xml:"package"`
		Groups []struct {
			Versions   []reference `xml:"PackageVersion"`
			References []reference `xml:"PackageReference"`
		} `xml:"ItemGroup"`
	}
	if err := decodeXML(content, &file); err != nil {
		return err
	}
	for _, p := range file.Packages {
		if p.Development == "true" {
			continue
		}
		if err := l.add(p.ID, p.Version); err != nil {
			return err
		}
	}
	for _, g := range file.Groups {
		for _, r := range append(g.Versions, g.References...) {
			version := strings.Trim(r.Version, "[]") // [1.2.3] is exactly that one
			if strings.ContainsAny(version, "$(,*") {
				version = ""
			}
			if err := l.add(firstOf(r.Include, r.Update), version); err != nil {
				return err
			}
		}
	}
	return nil
}

// swiftResolved reads Package.resolved of versions 1 to 3. Swift packages are
// named by their URL, as in OSV's SwiftURL.
func swiftResolved(content []byte, l *packageList) error {
	type pin struct {
		Location string `json:"location"`
		Old      string `json:"repositoryURL"`
		State    struct {
			Version string `json:"version"`
		} `json:"state"`
	}
	in := jsonDecoder(content)
	var read func(key string) error
	read = func(key string) error {
		switch key {
		case "object":
			return object(in, func(key string) error {
				if key != "pins" {
					return skip(in)
				}
				return read(key)
			})
		case "pins":
			return list(in, func() error {
				var p pin
				if err := value(in, &p); err != nil {
					return err
				}
				return l.add(swiftName(firstOf(p.Location, p.Old)), p.State.Version)
			})
		}
		return skip(in)
	}
	return object(in, read)
}

func swiftName(location string) string {
	for _, scheme := range []string{"https://", "http://", "ssh://git@", "git@"} {
		if rest, ok := strings.CutPrefix(location, scheme); ok {
			location = rest
			if scheme == "git@" {
				location = strings.Replace(location, ":", "/", 1)
			}
			break
		}
	}
	return strings.TrimSuffix(location, ".git")
}

// conanLock reads conan.lock of Conan 1 (a graph) and 2 (lists). What only
// builds is left out.
func conanLock(content []byte, l *packageList) error {
	in := jsonDecoder(content)
	add := func(reference string) error {
		// name/version[@user[/channel]][#revision][:package][%time]
		reference, _, _ = strings.Cut(reference, "%")
		reference, _, _ = strings.Cut(reference, ":")
		reference, _, _ = strings.Cut(reference, "#")
		reference, _, _ = strings.Cut(reference, "@")
		name, version, ok := strings.Cut(reference, "/")
		if !ok {
			return nil
		}
		return l.add(name, version)
	}
	node := func(string) error {
		var n struct {
			Ref  string `json:"ref"`
			Pref string `json:"pref"`
			Path string `json:"path"`
		}
		if err := value(in, &n); err != nil || n.Path != "" {
			return err
		}
		return add(firstOf(n.Ref, n.Pref))
	}
	return object(in, func(key string) error {
		switch key {
		case "requires":
			return list(in, func() error {
				var s json.RawMessage
				if err := in.Decode(&s); err != nil {
					return err
				}
				return add(text(s))
			})
		case "graph_lock":
			return object(in, func(key string) error {
				if key != "nodes" {
					return skip(in)
				}
				return object(in, node)
			})
		}
		return skip(in)
	})
}

// renvLock reads renv.lock of R. Packages of other repositories than CRAN have
// other versions.
func renvLock(content []byte, l *packageList) error {
	in := jsonDecoder(content)
	return object(in, func(key string) error {
		if key != "Packages" {
			return skip(in)
		}
		return object(in, func(name string) error {
			var p struct {
				Version    string `json:"Version"`
				Repository string `json:"Repository"`
				Source     string `json:"Source"`
			}
			if err := value(in, &p); err != nil {
				return err
			}
			if p.Repository != "CRAN" && p.Repository != "RSPM" && p.Source != "Repository" {
				p.Version = ""
			}
			return l.add(name, p.Version)
		})
	})
}
