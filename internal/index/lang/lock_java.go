package lang

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// gradleLock reads gradle.lockfile: "group:artifact:version=configurations".
func gradleLock(content []byte, l *packageList) error {
	return lines(content, func(line string) error {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "=")
		parts := strings.Split(line, ":")
		if strings.HasPrefix(line, "#") || len(parts) != 3 {
			return nil // "empty=…" lists configurations without dependencies
		}
		return l.add(parts[0]+":"+parts[1], parts[2])
	})
}

// sbtLock reads the file of sbt-dependency-lock.
func sbtLock(content []byte, l *packageList) error {
	in := jsonDecoder(content)
	return object(in, func(key string) error {
		if key != "dependencies" {
			return skip(in)
		}
		return list(in, func() error {
			var d struct {
				Org            string   `json:"org"`
				Name           string   `json:"name"`
				Version        string   `json:"version"`
				Configurations []string `json:"configurations"`
			}
			if err := value(in, &d); err != nil || d.Org == "" {
				return err
			}
			if len(d.Configurations) == 1 && d.Configurations[0] == "test" {
				return nil
			}
			return l.add(d.Org+":"+d.Name, d.Version)
		})
	})
}

// pom is what is needed of a Maven project (POM reference, model 4.0.0).
type pom struct {
	GroupID    string        `xml:"groupId"`
	ArtifactID string        `xml:"artifactId"`
	Version    string        `xml:"version"`
	Parent     pomParent     `xml:"parent"`
	Properties pomProperties `xml:"properties"`
	Managed    []pomNeed     `xml:"dependencyManagement>dependencies>dependency"`
	Needs      []pomNeed     `xml:"dependencies>dependency"`
}

type pomParent struct {
	GroupID string `xml:"groupId"`
	Version string `xml:"version"`
}

type pomNeed struct {
	GroupID    string `xml:"groupId"`
	ArtifactID string `xml:"artifactId"`
	Version    string `xml:"version"`
	Scope      string `xml:"scope"`
	Optional   string `xml:"optional"`
}

// pomProperties are elements of any name that hold text.
type pomProperties map[string]string

// pomPropertiesMax is the most properties of a project.
const pomPropertiesMax = 10_000

func (p *pomProperties) UnmarshalXML(d *xml.Decoder, _ xml.StartElement) error {
	if *p == nil {
		*p = pomProperties{}
	}
	for {
		t, err := d.Token()
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			var v struct {
				Text string `xml:",chardata"`
			}
			if err := d.DecodeElement(&v, &t); err != nil {
				return err
			}
			if len(*p) >= pomPropertiesMax {
				return errors.New("the project has too many properties")
			}
			(*p)[t.Name.Local] = strings.TrimSpace(v.Text)
		}
	}
}

// pomXML reads the direct dependencies of pom.xml. Its parents and what it
// imports lie elsewhere: a version that comes from there is not known.
func pomXML(content []byte, l *packageList) error {
	var p pom
	if err := decodeXML(content, &p); err != nil {
		return err
	}
	r := resolver{properties: p.Properties, fixed: map[string]string{}}
	for _, prefix := range []string{"project.", "pom.", ""} {
		r.fixed[prefix+"groupId"] = firstOf(p.GroupID, p.Parent.GroupID)
		r.fixed[prefix+"version"] = firstOf(p.Version, p.Parent.Version)
		r.fixed[prefix+"artifactId"] = p.ArtifactID
	}
	r.fixed["project.parent.version"], r.fixed["project.parent.groupId"] = p.Parent.Version, p.Parent.GroupID
	managed := map[string]pomNeed{}
	for _, m := range p.Managed {
		managed[r.resolve(m.GroupID)+":"+r.resolve(m.ArtifactID)] = m
	}
	for _, n := range p.Needs {
		name := r.resolve(n.GroupID) + ":" + r.resolve(n.ArtifactID)
		m := managed[name]
		switch firstOf(n.Scope, m.Scope) {
		case "test", "provided", "system", "import":
			continue
		}
		if name == ":" || strings.TrimSpace(n.Optional) == "true" {
			continue
		}
		if err := l.add(name, r.resolve(firstOf(n.Version, m.Version))); err != nil {
			return err
		}
	}
	return nil
}

func firstOf(a, b string) string {
	if a = strings.TrimSpace(a); a != "" {
		return a
	}
	return strings.TrimSpace(b)
}

// resolver fills in ${name}.
type resolver struct {
	properties pomProperties
	fixed      map[string]string
}

// resolve gives up on what does not end: a property that names itself.
func (r resolver) resolve(s string) string {
	const roundsMax, lengthMax = 16, 1024
	s = strings.TrimSpace(s)
	for range roundsMax {
		start := strings.Index(s, "${")
		if start < 0 || len(s) > lengthMax {
			break
		}
		end := strings.IndexByte(s[start:], '}')
		if end < 0 {
			break
		}
		name := s[start+2 : start+end]
		v, ok := r.properties[name]
		if !ok {
			v, ok = r.fixed[name]
		}
		if !ok {
			break
		}
		s = s[:start] + v + s[start+end+1:]
	}
	return s
}

// xmlSizeMax is the largest XML file in bytes that is read: its elements take
// twenty times as much.
const xmlSizeMax = 4 << 20

// decodeXML reads one document in whatever encoding it names: names and
// versions are ASCII in all of them.
func decodeXML(content []byte, v any) error {
	if len(content) > xmlSizeMax {
		return fmt.Errorf("%d bytes of XML are more than %d", len(content), xmlSizeMax)
	}
	d := xml.NewDecoder(bytes.NewReader(plainText(content)))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	d.Strict = false
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("XML: %w", err)
	}
	return nil
}
