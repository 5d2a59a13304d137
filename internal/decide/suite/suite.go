// Package suite runs Gatekeeper's test suites (test.gatekeeper.sh, kind Suite) as
// `gator verify` does: files go in, one result per case comes out. It reads them
// through an fs.FS and does nothing else outside.
package suite

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

const (
	group = "test.gatekeeper.sh"
	kind  = "Suite"
)

// filesMax bounds the files of one directory that are looked at.
const filesMax = 50_000

// Suite is one document with tests.
type Suite struct {
	Path  string `yaml:"-"` // in the fs.FS
	Tests []Test `yaml:"tests"`
	Skip  bool   `yaml:"skip"`
	// Unknown says which fields of the document mean nothing.
	Unknown string `yaml:"-"`
}

// Test is a template and a constraint, and what they must say.
type Test struct {
	Name       string `yaml:"name"`
	Template   string `yaml:"template"`   // path, relative to the suite's
	Constraint string `yaml:"constraint"` // path, relative to the suite's
	// Expansion is the path of ExpansionTemplates, relative to the suite's, or empty: the
	// constraint is also asked about what they make of each case's object.
	Expansion string `yaml:"expansion"`
	Cases     []Case `yaml:"cases"`
	// Invalid: the constraint must be refused by the template's schema.
	Invalid bool `yaml:"invalid"`
	Skip    bool `yaml:"skip"`
}

// Case is an object and what the constraint must say about it.
type Case struct {
	Name       string      `yaml:"name"`
	Object     string      `yaml:"object"`
	Inventory  []string    `yaml:"inventory"`
	Assertions []Assertion `yaml:"assertions"`
	Skip       bool        `yaml:"skip"`
}

// header is what every document of Kubernetes begins with.
type header struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
}

func (h header) isSuite() bool {
	g, _, _ := strings.Cut(h.APIVersion, "/")
	return g == group && h.Kind == kind
}

// Find reads the suites at target: those of a file, which must hold one, or of a
// directory and everything below. Errors: CodeNotFound, CodeInvalid, CodeTooLarge.
func Find(fsys fs.FS, target string) ([]*Suite, error) {
	info, err := fs.Stat(fsys, target)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "couldn't read %s: %w", target, errors.Unwrap(err))
	}
	if !info.IsDir() {
		suites, err := readFile(fsys, target)
		if err == nil && len(suites) == 0 {
			err = gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds no Suite", target).WithHint("a suite begins with: apiVersion: " + group + "/v1alpha1, kind: " + kind)
		}
		return suites, err
	}
	var all []*Suite
	files := 0
	err = fs.WalkDir(fsys, target, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".yaml", ".yml"}, path.Ext(p)) {
			return err
		}
		if files++; files > filesMax {
			return gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d files", target, filesMax)
		}
		suites, err := readFile(fsys, p)
		all = append(all, suites...)
		return err
	})
	if err == nil && len(all) == 0 {
		err = gatehouse.Errorf(gatehouse.CodeInvalid, "no file in %s holds a Suite", target).WithHint("a suite begins with: apiVersion: " + group + "/v1alpha1, kind: " + kind)
	}
	return all, err
}

// readFile reads the suites of one file. A file of something else has none.
func readFile(fsys fs.FS, p string) ([]*Suite, error) {
	data, err := readAll(fsys, p)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(data, []byte(group)) {
		return nil, nil
	}
	docs, problems := manifest.Split(p, data)
	if len(problems) > 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s", problems[0])
	}
	var all []*Suite
	for _, doc := range docs {
		var h header
		if err := decodeYAML(doc.Text, &h, false); err != nil || !h.isSuite() {
			continue // manifests of another kind may use what only their reader knows
		}
		s := &Suite{Path: p}
		if err := decodeYAML(doc.Text, s, false); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: the Suite cannot be read: %w", p, doc.Line, err)
		}
		strict := struct {
			header   `yaml:",inline"`
			Metadata any `yaml:"metadata"`
			Suite    `yaml:",inline"`
		}{}
		if err := decodeYAML(doc.Text, &strict, true); err != nil {
			s.Unknown = strings.TrimPrefix(err.Error(), "yaml: ")
		}
		all = append(all, s)
	}
	return all, nil
}

// decodeYAML never panics, whatever the text.
func decodeYAML(text string, to any, strict bool) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("it is not YAML")
		}
	}()
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(strict)
	if err := d.Decode(to); err != nil && err != io.EOF {
		return err
	}
	return nil
}

func readAll(fsys fs.FS, p string) ([]byte, error) {
	f, err := fsys.Open(p)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "couldn't read %s: %w", p, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, manifest.FileSizeMax+1))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read %s: %w", p, err)
	}
	return data, nil
}

// documents reads every document of a file as JSON has it.
func documents(fsys fs.FS, p string) ([]*manifest.Document, error) {
	data, err := readAll(fsys, p)
	if err != nil {
		return nil, err
	}
	docs, problems := manifest.Split(p, data)
	if len(problems) > 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s", problems[0])
	}
	if len(docs) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds no object", p)
	}
	out := make([]*manifest.Document, len(docs))
	for i := range docs {
		if problem := docs[i].Parse(); problem != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s", problem)
		}
		out[i] = &docs[i]
	}
	return out, nil
}

// one reads the only document of a file.
func one(fsys fs.FS, p string) (*manifest.Document, error) {
	docs, err := documents(fsys, p)
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds %d objects, it must hold one", p, len(docs))
	}
	return docs[0], nil
}

// join finds a file that a suite names.
func (s *Suite) join(name string) string { return path.Join(path.Dir(s.Path), name) }

// needs says what is missing of a test.
func (t Test) needs() error {
	switch {
	case t.Template == "":
		return fmt.Errorf("the test names no template")
	case t.Constraint == "":
		return fmt.Errorf("the test names no constraint")
	}
	return nil
}
