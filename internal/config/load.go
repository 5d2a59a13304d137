package config

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse"
)

// Entry is one key of a file: its value as text, and where it stands.
type Entry struct {
	Key    string
	Values []string // one, or the items of a list
	List   bool
	Line   int
}

// File is a configuration file, read but not understood: its keys are known to
// the server or to a command.
type File struct {
	Path    string
	Entries []Entry
}

// ReadFile reads the file at path, or DefaultFile if path is empty and it
// exists. Keys beyond known (which adds to [Keys]) are an error that names the
// nearest one. Errors: CodeInvalid, CodeTooLarge.
func ReadFile(path string, known []string) (File, error) {
	named := path != ""
	if !named {
		path = DefaultFile
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && !named:
		return File{}, nil
	case err != nil:
		return File{}, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, FileSizeMax+1))
	if err != nil {
		return File{}, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read %s: %w", path, err)
	}
	if len(b) > FileSizeMax {
		return File{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s is larger than %d bytes", path, FileSizeMax)
	}
	return parse(path, b, append(Keys(), known...))
}

func parse(path string, b []byte, known []string) (File, error) {
	out := File{Path: path}
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(b)))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return out, nil
	} else if err != nil {
		return out, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %w", path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return out, gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds more than one document", path).WithHint("settings are one document; take out the lines ---")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return out, nil // comments only
	}
	if root.Kind != yaml.MappingNode {
		return out, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: the file must be a list of key: value", path, root.Line)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key := root.Content[i]
		if !slices.Contains(known, key.Value) {
			return out, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: unknown key %q", path, key.Line, key.Value).
				WithHint("did you mean %q?", Nearest(key.Value, known))
		}
		if slices.ContainsFunc(out.Entries, func(e Entry) bool { return e.Key == key.Value }) {
			return out, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: %s is set twice", path, key.Line, key.Value)
		}
		e, ok := entry(key.Value, root.Content[i+1])
		if !ok {
			return out, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: %s: a value or a list of values must follow", path, key.Line, key.Value)
		}
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}

// entry takes scalars and lists of them, in YAML's own spelling: 010 stays 010.
func entry(key string, n *yaml.Node) (Entry, bool) {
	e := Entry{Key: key, Line: n.Line}
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			e.Values = []string{""}
		} else {
			e.Values = []string{n.Value}
		}
		return e, true
	case yaml.SequenceNode:
		e.List = true
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return e, false
			}
			e.Values = append(e.Values, item.Value)
		}
		return e, true
	}
	return e, false
}

// Load reads the defaults, then the file, then the environment. Flags are
// applied by the caller. Errors: CodeInvalid for a wrong value.
func Load(f File, getenv func(string) string) (Config, error) {
	c := Default()
	byKey := map[string]*Value{}
	for i, v := range c.Values() {
		byKey[Keys()[i]] = v
	}
	for _, e := range f.Entries {
		v := byKey[e.Key]
		if v == nil {
			continue // a command's
		}
		if err := apply(v, e); err != nil {
			return c, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: %s: %s", f.Path, e.Line, e.Key, err)
		}
	}
	return c, c.env(getenv)
}

func apply(v *Value, e Entry) error {
	switch {
	case v.isList() && e.List:
		v.SetList(append([]string{}, e.Values...))
		return nil
	case e.List:
		return errors.New("takes one value, not a list")
	case e.Values[0] == "" && v.Type() != "string" && !v.isList():
		return errors.New("has no value")
	}
	return v.Set(e.Values[0])
}

// env applies GATEHOUSE_* variables.
func (c *Config) env(getenv func(string) string) error {
	keys := Keys()
	for i, v := range c.Values() {
		name := EnvName(keys[i])
		if s := getenv(name); s != "" {
			if err := v.Set(s); err != nil {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %s", name, err)
			}
		}
	}
	return nil
}

// secretSizeMax bounds a file that holds one secret, in bytes.
const secretSizeMax = 64 << 10

// Secret is the value of the variable name or, with _FILE behind its name, the
// content of the file that it names, without the line end. Both are an error.
func Secret(getenv func(string) string, name string) (string, error) {
	value, path := getenv(name), getenv(name+"_FILE")
	if value != "" && path != "" {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%s and %s_FILE are both set", name, name).WithHint("unset one of them")
	}
	if path == "" {
		return value, nil
	}
	return secretFile(name+"_FILE", path)
}

func secretFile(name, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, secretSizeMax+1))
	if err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %w", name, err)
	}
	if len(b) > secretSizeMax {
		return "", gatehouse.Errorf(gatehouse.CodeTooLarge, "%s: %s is larger than %d bytes", name, path, secretSizeMax)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %s is empty", name, path)
	}
	return s, nil
}

// DatabaseURL is the URL of the PostgreSQL database, from database or
// database-file; empty is SQLite. It holds a password: it must not be logged.
func (c Config) DatabaseURL() (string, error) {
	if c.DatabaseFile == "" {
		return c.Database, nil
	}
	url, err := secretFile("database-file", c.DatabaseFile)
	if err != nil {
		return "", err
	}
	return url, checkDatabase(url)
}
