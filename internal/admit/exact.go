package admit

import (
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
)

// exactDepthMax bounds how deep what [Exactly] reads is nested: none of it is deep.
const exactDepthMax = 20

// Exactly is json.Unmarshal for what others have to read in the same way. That one takes
// a name in any case, and of a name that is there twice the last: of somebody who wrote
// "image" and "Image" it would be judged which of them comes last. Here both are an error.
// Errors: CodeInvalid, or those of json.Unmarshal.
func Exactly(b []byte, to any) error {
	if json.Valid(b) {
		return exactly(b, to)
	}
	if err := json.Unmarshal(b, to); err != nil {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "it is not JSON")
}

// exactly is Exactly for what is known to be JSON.
func exactly(b []byte, to any) error {
	if s, ok := to.(*string); ok {
		if text, plain := plainText(b); plain {
			*s = text
			return nil
		}
	}
	if _, err := distinct(b, space(b, 0), reflect.TypeOf(to), 0); err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

// distinct reads the value at a place of b, which is known to be JSON, and becomes a t
// (nil: something that has no names of its own). It refuses an object that has a name
// twice or in another case, and returns where the value ends.
func distinct(b []byte, at int, t reflect.Type, depth int) (end int, err error) {
	if depth > exactDepthMax {
		return 0, gatehouse.Errorf(gatehouse.CodeInvalid, "it is nested deeper than %d levels", exactDepthMax)
	}
	delim := b[at]
	switch {
	case delim == '{' || delim == '[':
	case depth == 0:
		return len(b), nil
	default:
		return value(b, at), nil
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	seen := map[string]bool{}
	for at = space(b, at+1); b[at] != '}' && b[at] != ']'; {
		var inner reflect.Type
		if delim == '{' {
			end := value(b, at)
			name, err := text(b[at:end])
			if err != nil {
				return 0, err
			}
			at = space(b, space(b, end)+1) // behind the colon
			var known string
			if known, inner = fieldOf(t, name); seen[name] || known != "" && known != name {
				return 0, gatehouse.Errorf(gatehouse.CodeInvalid, "it has %q twice, or not as it is spelled", clip(name, 100))
			}
			seen[name] = true
		} else if t != nil && t.Kind() == reflect.Slice {
			inner = t.Elem()
		}
		if at, err = distinct(b, at, inner, depth+1); err != nil {
			return 0, err
		}
		if at = space(b, at); b[at] == ',' {
			at = space(b, at+1)
		}
	}
	return at + 1, nil
}

// text is a JSON string as encoding/json reads it.
func text(b []byte) (s string, err error) {
	if s, plain := plainText(b); plain {
		return s, nil
	}
	err = json.Unmarshal(b, &s)
	return s, err
}

// plainText is a JSON string that says what stands there; plain is false for anything
// else. b is known to be JSON.
func plainText(b []byte) (s string, plain bool) {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return "", false
	}
	b = b[1 : len(b)-1]
	for _, c := range b {
		if c == '\\' || c >= utf8.RuneSelf {
			return "", false
		}
	}
	return string(b), true
}

// fieldOf finds the field that encoding/json takes a name for, and what it becomes.
func fieldOf(t reflect.Type, name string) (known string, inner reflect.Type) {
	switch {
	case t == nil:
	case t.Kind() == reflect.Map:
		return "", t.Elem()
	case t.Kind() == reflect.Struct:
		for _, f := range fieldsOf(t) {
			if strings.EqualFold(f.name, name) {
				return f.name, f.inner
			}
		}
	}
	return "", nil
}

// field is one of a struct: the name that encoding/json takes for it, and what it becomes.
type field struct {
	name  string
	inner reflect.Type
}

// fieldsKnown has the fields of the types that were asked for: those of this program.
var fieldsKnown sync.Map // reflect.Type: []field

func fieldsOf(t reflect.Type) []field {
	if known, ok := fieldsKnown.Load(t); ok {
		return known.([]field)
	}
	list := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		list = append(list, field{name, f.Type})
	}
	fieldsKnown.Store(t, list)
	return list
}
