package manifest

import (
	"fmt"
	"strings"
)

// Kind is what sort of value a field holds.
type Kind int

const (
	Text Kind = iota
	Bool
	Int
	Object
	List
	TextMap // any keys, text values
	Any     // not looked into
	Number  // whole or not
)

// Type is the grammar of one value. Lint checks manifests against it, and fix
// rebuilds them from it.
type Type struct {
	Kind   Kind
	Fields []Field  // of an Object
	Elem   *Type    // of a List
	Enum   []string // of a Text
	// Shape shows the right form in messages: "{action: pass|fail, message}".
	Shape string
	// Instead says, where another sort of value is given, what was probably
	// meant.
	Instead string
	// Why is added to the message about a wrong sort of value.
	Why string
	// Unsupported is said of a value that is none of Enum.
	Unsupported string
	// PEM is a Text that holds PEM blocks.
	PEM bool
}

// Field is one field of an Object.
type Field struct {
	Name     string
	Type     Type
	Required bool
}

// Field returns the named field of an Object.
func (t Type) Field(name string) (Field, bool) {
	for _, f := range t.Fields {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// describe says in words what t wants.
func (t Type) describe() string {
	var s string
	switch t.Kind {
	case Bool:
		s = "true or false"
	case Int:
		s = "a whole number"
	case Number:
		s = "a number"
	case Object:
		s = "an object"
	case List:
		s = "a list"
	case TextMap:
		s = "an object of strings"
	default:
		s = "a string"
	}
	if t.Shape != "" {
		s += " " + t.Shape
	}
	return s
}

// places lists where in t a field of this name exists, as paths.
func (t Type) places(name, path string) []string {
	var found []string
	for _, f := range t.Fields {
		at := join(path, f.Name)
		if f.Name == name {
			found = append(found, at)
		}
		inner := f.Type
		for inner.Kind == List && inner.Elem != nil {
			at, inner = at+"[]", *inner.Elem
		}
		found = append(found, inner.places(name, at)...)
	}
	return found
}

// Misplaced finds the type of a field of this name anywhere in t, for a field
// that stands where t has none: the first whose wrong use it can explain.
func (t Type) Misplaced(name string) (Type, bool) {
	for _, f := range t.Fields {
		if f.Name == name && f.Type.Why != "" {
			return f.Type, true
		}
		inner := f.Type
		for inner.Kind == List && inner.Elem != nil {
			inner = *inner.Elem
		}
		if found, ok := inner.Misplaced(name); ok {
			return found, true
		}
	}
	return Type{}, false
}

// nearest finds the field whose name is most like a misspelt one.
func (t Type) nearest(name string) (string, bool) {
	best, distance := "", 1+max(1, len(name)/3)
	for _, f := range t.Fields {
		if strings.EqualFold(f.Name, name) {
			return f.Name, true
		}
		if d := editDistance(f.Name, name); d < distance {
			best, distance = f.Name, d
		}
	}
	return best, best != ""
}

func (t Type) fieldNames() string {
	names := make([]string, len(t.Fields))
	for i, f := range t.Fields {
		names[i] = f.Name
	}
	return strings.Join(names, ", ")
}

// editDistance is Levenshtein's, over bytes; names longer than any field's are
// far from all of them.
func editDistance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// Metadata is the grammar of ObjectMeta: what people write themselves, and
// what the API server adds when an object is read back.
func Metadata() Type {
	return Type{Kind: Object, Fields: []Field{
		{Name: "name", Required: true},
		{Name: "labels", Type: Type{Kind: TextMap}},
		{Name: "annotations", Type: Type{Kind: TextMap}},
		{Name: "namespace"}, {Name: "generateName"}, {Name: "uid"}, {Name: "resourceVersion"}, {Name: "selfLink"},
		{Name: "creationTimestamp", Type: Type{Kind: Any}}, {Name: "deletionTimestamp", Type: Type{Kind: Any}},
		{Name: "deletionGracePeriodSeconds", Type: Type{Kind: Int}},
		{Name: "generation", Type: Type{Kind: Int}},
		{Name: "finalizers", Type: Type{Kind: List, Elem: &Type{}}},
		{Name: "ownerReferences", Type: Type{Kind: Any}},
		{Name: "managedFields", Type: Type{Kind: Any}},
	}}
}
