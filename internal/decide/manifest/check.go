package manifest

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// Check compares the document with its grammar and returns every difference.
// Values of the wrong sort become null afterwards, so that what remains can be
// decoded and looked at further.
func (d *Document) Check(t Type) []decide.Problem {
	c := checker{doc: d, root: t}
	c.value(d.Root, t, "", 0)
	return c.problems
}

type checker struct {
	doc      *Document
	root     Type
	problems []decide.Problem
}

func (c *checker) add(n *yaml.Node, field, message, hint string) {
	c.problems = append(c.problems, c.doc.Problem(n, field, message, hint))
}

func (c *checker) value(n *yaml.Node, t Type, path string, depth int) {
	if depth > depthMax {
		c.add(n, path, fmt.Sprintf("nested deeper than %d levels", depthMax), "")
		return
	}
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		c.add(n, path, "anchors and aliases are not supported in policies", "write the value out")
		drop(n)
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return // null is absent, as in the API server
	}
	switch t.Kind {
	case Object:
		c.object(n, t, path, depth)
	case List:
		c.list(n, t, path, depth)
	case TextMap:
		c.textMap(n, t, path, depth)
	case Any:
		for i, child := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 {
				continue
			}
			c.value(child, t, path, depth+1)
		}
	default:
		c.scalar(n, t, path)
	}
}

func (c *checker) wrong(n *yaml.Node, t Type, path string) {
	message := "must be " + t.describe() + ", it is " + nodeName(n)
	if t.Why != "" {
		message += "; " + t.Why
	}
	c.add(n, path, message, t.Instead)
	drop(n)
}

func drop(n *yaml.Node) {
	*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: n.Line, Column: n.Column}
}

func (c *checker) object(n *yaml.Node, t Type, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		c.wrong(n, t, path)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, child := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		if seen[key.Value] {
			c.add(key, at, "is given twice", "")
			continue
		}
		seen[key.Value] = child.ShortTag() != "!!null"
		f, ok := t.Field(key.Value)
		if !ok {
			c.unknown(key, child, t, path)
			continue
		}
		c.value(child, f.Type, at, depth+1)
	}
	for _, f := range t.Fields {
		if f.Required && !seen[f.Name] {
			c.add(n, path, "missing field(s): "+join(path, f.Name), "")
		}
	}
}

func (c *checker) unknown(key, value *yaml.Node, t Type, path string) {
	name := clip(key.Value)
	at := join(path, name)
	if name == "<<" {
		c.add(key, at, "merge keys are not supported in policies", "write the fields out")
		return
	}
	if meant, ok := c.root.Misplaced(name); ok && value.Kind == yaml.ScalarNode {
		c.add(key, at, "unknown field; "+name+" must be "+meant.describe()+", it is "+nodeName(value)+"; "+meant.Why, meant.Instead)
		return
	}
	// The same name elsewhere tells more than a name that looks alike.
	if places := c.root.places(name, ""); len(places) > 0 {
		c.add(key, at, "unknown field", "the field "+name+" exists as "+strings.Join(places, " and "))
		return
	}
	if near, ok := t.nearest(name); ok {
		c.add(key, at, "unknown field", "did you mean "+near+"?")
		return
	}
	where := path
	if where == "" {
		where = "the document"
	}
	c.add(key, at, "unknown field", where+" has the fields "+t.fieldNames())
}

func (c *checker) list(n *yaml.Node, t Type, path string, depth int) {
	if n.Kind != yaml.SequenceNode {
		c.wrong(n, t, path)
		return
	}
	for i, child := range n.Content {
		if child.Kind == yaml.ScalarNode && child.ShortTag() == "!!null" {
			c.add(child, index(path, i), "is empty", "")
			continue
		}
		c.value(child, *t.Elem, index(path, i), depth+1)
	}
}

func (c *checker) textMap(n *yaml.Node, t Type, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		c.wrong(n, t, path)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		if seen[key] {
			c.add(n.Content[i], join(path, clip(key)), "is given twice", "")
		}
		seen[key] = true
		c.value(n.Content[i+1], Type{}, join(path, clip(key)), depth+1)
	}
}

func (c *checker) scalar(n *yaml.Node, t Type, path string) {
	if n.Kind != yaml.ScalarNode {
		c.wrong(n, t, path)
		return
	}
	tag := n.ShortTag()
	switch {
	case t.Kind == Bool && tag != "!!bool", t.Kind == Int && tag != "!!int", t.Kind == Number && tag != "!!int" && tag != "!!float":
		c.wrong(n, t, path)
	case t.Kind == Text && tag != "!!str" && tag != "!!timestamp": // a date is the text that it is
		t.Instead = "put the value in quotes"
		c.wrong(n, t, path)
	case t.Kind == Text && len(t.Enum) > 0 && !contains(t.Enum, n.Value):
		c.add(n, path, "invalid value: "+clip(n.Value), "use "+strings.Join(t.Enum, " or "))
		c.problems[len(c.problems)-1].Detail = t.Unsupported
	}
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func nodeName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!bool":
		return "the boolean " + clip(n.Value)
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!null":
		return "null"
	}
	return fmt.Sprintf("the string %q", clip(n.Value))
}

func clip(s string) string {
	const max = 80
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
