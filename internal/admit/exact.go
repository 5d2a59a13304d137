package admit

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// exactDepthMax bounds how deep what [Exactly] reads is nested: none of it is deep.
const exactDepthMax = 20

// Exactly is json.Unmarshal for what others have to read in the same way. That one takes
// a name in any case, and of a name that is there twice the last: of somebody who wrote
// "image" and "Image" it would be judged which of them comes last. Here both are an error.
// Errors: CodeInvalid, or those of json.Unmarshal.
func Exactly(b []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := distinct(d, reflect.TypeOf(to), 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "something follows the JSON value")
	}
	return json.Unmarshal(b, to)
}

// distinct reads one value that becomes a t (nil: something that has no names of its
// own), and refuses an object that has a name twice or in another case.
func distinct(d *json.Decoder, t reflect.Type, depth int) error {
	if depth > exactDepthMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "it is nested deeper than %d levels", exactDepthMax)
	}
	token, err := d.Token()
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	delim, nested := token.(json.Delim)
	if err != nil || !nested {
		return err
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	seen := map[string]bool{}
	for d.More() {
		var inner reflect.Type
		if delim == '{' {
			token, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := token.(string) // the decoder takes nothing else for a key
			var known string
			if known, inner = fieldOf(t, name); seen[name] || known != "" && known != name {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "it has %q twice, or not as it is spelled", clip(name, 100))
			}
			seen[name] = true
		} else if t != nil && t.Kind() == reflect.Slice {
			inner = t.Elem()
		}
		if err := distinct(d, inner, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// fieldOf finds the field that encoding/json takes a name for, and what it becomes.
func fieldOf(t reflect.Type, name string) (known string, inner reflect.Type) {
	switch {
	case t == nil:
	case t.Kind() == reflect.Map:
		return "", t.Elem()
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			known, _, _ = strings.Cut(f.Tag.Get("json"), ",")
			if known == "" {
				known = f.Name
			}
			if strings.EqualFold(known, name) {
				return known, f.Type
			}
		}
	}
	return "", nil
}
