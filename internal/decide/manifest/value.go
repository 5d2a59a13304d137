package manifest

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// valuesMax bounds the values of one document, aliases followed.
const valuesMax = 200_000

// Value returns the whole document as JSON has it: objects are map[string]any, lists
// []any, numbers json.Number. What JSON cannot say (keys that are no strings, NaN),
// keys given twice and aliases beyond all measure are errors.
func (d *Document) Value() (map[string]any, error) {
	r := valueReader{}
	v, err := r.value(d.Root, 0)
	if err != nil {
		return nil, err
	}
	obj, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the document is not a mapping of fields")
	}
	return obj, nil
}

// ValueOf is [Document.Value] of a part of a document.
func ValueOf(n *yaml.Node) (any, error) {
	r := valueReader{}
	return r.value(n, 0)
}

type valueReader struct{ values int }

func (r *valueReader) value(n *yaml.Node, depth int) (any, error) {
	if n == nil {
		return nil, nil
	}
	if depth > depthMax {
		return nil, fmt.Errorf("line %d: nested deeper than %d levels", n.Line, depthMax)
	}
	if r.values++; r.values > valuesMax {
		return nil, fmt.Errorf("line %d: more than %d values", n.Line, valuesMax)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 1 {
			return r.value(n.Content[0], depth)
		}
		return nil, nil
	case yaml.AliasNode:
		return r.value(n.Alias, depth+1)
	case yaml.MappingNode:
		return r.object(n, depth)
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			v, err := r.value(c, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	return scalar(n)
}

func (r *valueReader) object(n *yaml.Node, depth int) (any, error) {
	obj := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, child := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: a key is not a string", key.Line)
		}
		if key.ShortTag() == "!!merge" {
			return nil, fmt.Errorf("line %d: merge keys are not supported", key.Line)
		}
		if _, twice := obj[key.Value]; twice {
			return nil, fmt.Errorf("line %d: the key %q is given twice", key.Line, clip(key.Value))
		}
		v, err := r.value(child, depth+1)
		if err != nil {
			return nil, err
		}
		obj[key.Value] = v
	}
	return obj, nil
}

// scalar keeps what looks like a date as the text that it is.
func scalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return b, err
	case "!!int":
		var i int64
		if err := n.Decode(&i); err == nil {
			return json.Number(strconv.FormatInt(i, 10)), nil
		}
		var u uint64
		if err := n.Decode(&u); err == nil {
			return json.Number(strconv.FormatUint(u, 10)), nil
		}
		return float(n)
	case "!!float":
		return float(n)
	}
	return n.Value, nil
}

func float(n *yaml.Node) (any, error) {
	var f float64
	if err := n.Decode(&f); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, fmt.Errorf("line %d: %s is not a number of JSON", n.Line, clip(n.Value))
	}
	b, err := json.Marshal(f)
	return json.Number(b), err
}
