// Package workload reads which images a Kubernetes object would run: a JSON
// object goes in, image references with their field paths and the Pods that
// the object would create come out. It knows no policy and trusts nothing: keys
// are case-sensitive as in the API server, a key given twice is an error, and
// depth and size have limits.
package workload

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of one object. The API server itself takes 3 MiB per request.
const (
	ObjectSizeMax = 8 << 20 // bytes of JSON
	depthMax      = 100     // objects and lists inside each other
	valuesMax     = 100_000 // values of any kind; judging one takes far more memory than its bytes
	ImagesMax     = 2_000   // images of one object
)

// Decode reads one JSON object. Numbers stay json.Number, so that nothing is
// rounded. Errors: CodeInvalid for what is not one JSON object or gives a key
// twice, CodeTooLarge for a limit.
func Decode(b []byte) (map[string]any, error) {
	if len(b) > ObjectSizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the object has %d bytes, %d are allowed", len(b), ObjectSizeMax)
	}
	d := decoder{json: json.NewDecoder(bytes.NewReader(b))}
	d.json.UseNumber()
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the object is %s, not a JSON object", kindName(v))
	}
	if _, err := d.json.Token(); err != io.EOF {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "something follows the JSON object")
	}
	return obj, nil
}

type decoder struct {
	json   *json.Decoder
	values int
}

func (d *decoder) value(depth int) (any, error) {
	if depth > depthMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the object is nested deeper than %d levels", depthMax)
	}
	if d.values++; d.values > valuesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the object has more than %d values", valuesMax)
	}
	tok, err := d.json.Token()
	if err != nil {
		return nil, syntax(err)
	}
	switch delim, _ := tok.(json.Delim); delim {
	case '{':
		return d.object(depth)
	case '[':
		return d.list(depth)
	}
	return tok, nil
}

func (d *decoder) object(depth int) (any, error) {
	obj := map[string]any{}
	for d.json.More() {
		tok, err := d.json.Token()
		if err != nil {
			return nil, syntax(err)
		}
		key, ok := tok.(string)
		if !ok {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a key of the object is not a string")
		}
		if _, twice := obj[key]; twice {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the object has the key %q twice", clip(key))
		}
		if obj[key], err = d.value(depth + 1); err != nil {
			return nil, err
		}
	}
	_, err := d.json.Token()
	return obj, syntax(err)
}

func (d *decoder) list(depth int) (any, error) {
	list := []any{}
	for d.json.More() {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := d.json.Token()
	return list, syntax(err)
}

func syntax(err error) error {
	if err == nil {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the object is not JSON: %w", err)
}

func kindName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("%T", v)
}

func clip(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
