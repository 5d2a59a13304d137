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
	"strings"
	"unicode/utf8"

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
//
// It takes what encoding/json takes, token by token, and makes the same of it, in a
// quarter of the time: an object is read several times for each review.
func Decode(b []byte) (map[string]any, error) {
	if len(b) > ObjectSizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the object has %d bytes, %d are allowed", len(b), ObjectSizeMax)
	}
	d := decoder{text: b}
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the object is %s, not a JSON object", kindName(v))
	}
	if d.space(); d.at < len(b) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "something follows the JSON object")
	}
	return obj, nil
}

// decoder reads JSON (RFC 8259) from text, whose part before at has been read.
type decoder struct {
	text   []byte
	at     int
	values int
}

func (d *decoder) value(depth int) (any, error) {
	if depth > depthMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the object is nested deeper than %d levels", depthMax)
	}
	if d.values++; d.values > valuesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the object has more than %d values", valuesMax)
	}
	switch c := d.next(); c {
	case '{':
		return d.object(depth)
	case '[':
		return d.list(depth)
	case '"':
		return d.str()
	case 't':
		return true, d.literal("true")
	case 'f':
		return false, d.literal("false")
	case 'n':
		return nil, d.literal("null")
	}
	return d.number()
}

func (d *decoder) object(depth int) (any, error) {
	obj := map[string]any{}
	for d.at++; ; d.at++ { // behind the brace, then behind each comma
		c := d.next()
		if c == '}' && len(obj) == 0 {
			break
		}
		if c != '"' {
			return nil, d.syntax()
		}
		key, err := d.str()
		if err != nil {
			return nil, err
		}
		if _, twice := obj[key]; twice {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the object has the key %q twice", clip(key))
		}
		if d.next() != ':' {
			return nil, d.syntax()
		}
		d.at++
		if obj[key], err = d.value(depth + 1); err != nil {
			return nil, err
		}
		if c = d.next(); c == '}' {
			break
		}
		if c != ',' {
			return nil, d.syntax()
		}
	}
	d.at++
	return obj, nil
}

func (d *decoder) list(depth int) (any, error) {
	list := []any{}
	d.at++
	if d.next() == ']' {
		d.at++
		return list, nil
	}
	for {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		c := d.next()
		if c != ',' && c != ']' {
			return nil, d.syntax()
		}
		if d.at++; c == ']' {
			return list, nil
		}
	}
}

// next skips space and returns the byte behind it, 0 at the end: no value begins
// with that.
func (d *decoder) next() byte {
	d.space()
	if d.at < len(d.text) {
		return d.text[d.at]
	}
	return 0
}

func (d *decoder) space() {
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

func (d *decoder) literal(word string) error {
	if !bytes.HasPrefix(d.text[d.at:], []byte(word)) {
		return d.syntax()
	}
	d.at += len(word)
	return nil
}

// str reads a string whose quotation mark is next.
func (d *decoder) str() (string, error) {
	start, plain := d.at, true
	for i := start + 1; i < len(d.text); i++ {
		switch c := d.text[i]; {
		case c == '"':
			d.at = i + 1
			if raw := d.text[start+1 : i]; plain {
				return string(raw), nil
			}
			// Escapes, and what is not UTF-8, are read as everybody reads them.
			var s string
			if json.Unmarshal(d.text[start:d.at], &s) != nil {
				return "", d.syntax()
			}
			return s, nil
		case c == '\\':
			plain = false
			i++
		case c >= utf8.RuneSelf:
			plain = false
		case c < ' ':
			return "", d.syntax()
		}
	}
	return "", d.syntax()
}

// number reads what must be one, as it stands.
func (d *decoder) number() (any, error) {
	start := d.at
	d.skip("-")
	if !d.skip("0") && d.digits() == 0 {
		return nil, d.syntax()
	}
	if d.skip(".") && d.digits() == 0 {
		return nil, d.syntax()
	}
	if d.skip("eE") {
		d.skip("+-")
		if d.digits() == 0 {
			return nil, d.syntax()
		}
	}
	return json.Number(d.text[start:d.at]), nil
}

// skip reads one of some bytes, if one is next.
func (d *decoder) skip(of string) bool {
	if d.at < len(d.text) && strings.IndexByte(of, d.text[d.at]) >= 0 {
		d.at++
		return true
	}
	return false
}

func (d *decoder) digits() (n int) {
	for d.at < len(d.text) && '0' <= d.text[d.at] && d.text[d.at] <= '9' {
		d.at++
		n++
	}
	return n
}

// syntax says in the words of encoding/json what is wrong.
func (d *decoder) syntax() error {
	err := json.NewDecoder(bytes.NewReader(d.text)).Decode(new(json.RawMessage))
	if err == nil || err == io.EOF {
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
