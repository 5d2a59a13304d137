// Package manifest reads YAML manifests of policies strictly: a file goes in,
// its documents and, checked against a grammar, every problem with line, field
// path and the nearest right form come out. Aliases, unknown fields and keys
// given twice are problems: a policy must not mean something else than it says.
package manifest

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// Limits of one file.
const (
	FileSizeMax  = 1 << 20 // bytes
	DocumentsMax = 1_000
	depthMax     = 60 // nodes inside each other
)

// Document is one YAML document of a file.
type Document struct {
	Path string
	Line int        // of its first line in the file, from 1
	Text string     // as written, without the separator
	Root *yaml.Node // set by Parse
}

// nameMax is Kubernetes' limit of a name, in bytes.
const nameMax = 253

// The limit is no part of the pattern: as one it costs more than all the rest of
// a start.
var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// ValidName reports whether s is a name as Kubernetes takes it for an object.
func ValidName(s string) bool { return len(s) <= nameMax && namePattern.MatchString(s) }

var separator = regexp.MustCompile(`^(---|\.\.\.)([ \t\r]|$)`)

// Split cuts a file into its documents without parsing them. Documents that
// hold nothing but blanks and comments are left out.
func Split(path string, data []byte) ([]Document, []decide.Problem) {
	if len(data) > FileSizeMax {
		return nil, []decide.Problem{{Path: path, Message: fmt.Sprintf("the file has %d bytes, %d are allowed", len(data), FileSizeMax)}}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	var docs []Document
	var text strings.Builder
	start, no, any := 1, 0, false
	flush := func(next int) {
		if any {
			docs = append(docs, Document{Path: path, Line: start, Text: text.String()})
		}
		text.Reset()
		start, any = next, false
	}
	for line := range strings.Lines(string(data)) {
		no++
		if separator.MatchString(strings.TrimRight(line, "\n")) {
			flush(no + 1)
			continue
		}
		if trimmed := strings.TrimSpace(line); trimmed != "" && !strings.HasPrefix(trimmed, "#") {
			any = true
		}
		text.WriteString(line)
	}
	flush(no)
	if len(docs) > DocumentsMax {
		return nil, []decide.Problem{{Path: path, Message: fmt.Sprintf("the file has %d documents, %d are allowed", len(docs), DocumentsMax)}}
	}
	return docs, nil
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// Parse fills d.Root. A problem is returned for text that is not one YAML
// mapping.
func (d *Document) Parse() (problem *decide.Problem) {
	defer func() {
		// The YAML library panics on some hostile input instead of failing.
		if r := recover(); r != nil {
			problem = &decide.Problem{Path: d.Path, Line: d.Line, Message: "the document is not YAML"}
		}
	}()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(d.Text), &doc); err != nil {
		message := strings.TrimPrefix(err.Error(), "yaml: ")
		line := d.Line
		if m := yamlLine.FindStringSubmatchIndex(message); m != nil {
			n, _ := strconv.Atoi(message[m[2]:m[3]])
			line = d.Line + n - 1
			message = message[:m[0]] + message[m[1]:]
		}
		return &decide.Problem{Path: d.Path, Line: line, Message: "the document is not YAML: " + message}
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return &decide.Problem{Path: d.Path, Line: d.Line, Message: "the document is not a mapping of fields"}
	}
	d.Root = doc.Content[0]
	return nil
}

// Field returns the scalar text at a path of keys, "" where there is none.
func (d *Document) Field(keys ...string) string {
	n := d.Root
	for _, key := range keys {
		n = Get(n, key)
	}
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// Problem makes a problem at node, or at the document's start for nil.
func (d *Document) Problem(node *yaml.Node, field, message, hint string) decide.Problem {
	line := d.Line
	if node != nil && node.Line > 0 {
		line = d.Line + node.Line - 1
	}
	return decide.Problem{Path: d.Path, Line: line, Field: field, Message: message, Hint: hint}
}

// At finds the node of a field path such as "spec.authorities[0].key"; where
// the path goes on below what exists it is the last node that does.
func (d *Document) At(path string) *yaml.Node {
	n := d.Root
	for part := range strings.SplitSeq(path, ".") {
		name, rest, _ := strings.Cut(part, "[")
		next := Get(n, name)
		if next == nil {
			return n
		}
		n = next
		if rest == "" {
			continue
		}
		i, err := strconv.Atoi(strings.TrimSuffix(rest, "]"))
		if err != nil || n.Kind != yaml.SequenceNode || i < 0 || i >= len(n.Content) {
			return n
		}
		n = n.Content[i]
	}
	return n
}

// Get returns the value of a key of a mapping, nil where there is none.
func Get(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}
