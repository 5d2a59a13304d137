package constraint

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Limits of one schema.
const (
	schemaDepthMax = 40
	schemaNodesMax = 10_000
)

// schema is an OpenAPI schema of version 3 as CustomResourceDefinitions have it.
type schema struct {
	kind                  string // string, integer, number, boolean, array, object; "" = any
	nullable, intOrString bool
	properties            map[string]*schema
	additional            *schema // of properties that are not named
	closed                bool    // there must be no others
	open                  bool    // others are kept, whatever they are
	items                 *schema
	required              []string
	enum                  []any
	pattern               *regexp.Regexp
	bounds                map[string]float64 // minLength, maximum, …
	exclusive             map[string]bool    // minimum, maximum
	unique                bool
	fallback              any // the default
	hasDefault            bool
	allOf, anyOf, oneOf   []*schema
	not                   *schema
}

// schemaProblem is one thing wrong with a schema, or with a value.
type schemaProblem struct {
	field, message string
	warning        bool
}

// boundNames are the limits that a schema can set.
var boundNames = []string{
	"minLength", "maxLength", "minimum", "maximum", "multipleOf", "minItems", "maxItems", "minProperties", "maxProperties",
}

// ignored are words of schemas that say nothing about which values are right.
var ignored = []string{"description", "title", "example", "externalDocs", "format", "$schema", "id", "type", "default"}

type schemaReader struct {
	nodes    int
	problems []schemaProblem
}

// parseSchema reads a schema as JSON has it.
func parseSchema(v any) (*schema, []schemaProblem) {
	r := schemaReader{}
	s := r.schema(v, "", 0)
	slices.SortStableFunc(r.problems, func(a, b schemaProblem) int { return strings.Compare(a.field+" "+a.message, b.field+" "+b.message) })
	return s, r.problems
}

func (r *schemaReader) say(field, format string, args ...any) {
	r.problems = append(r.problems, schemaProblem{field: field, message: fmt.Sprintf(format, args...)})
}

func (r *schemaReader) schema(v any, field string, depth int) *schema {
	s := &schema{bounds: map[string]float64{}, exclusive: map[string]bool{}}
	obj, ok := v.(map[string]any)
	if !ok {
		r.say(field, "must be an object")
		return s
	}
	if r.nodes++; depth > schemaDepthMax || r.nodes > schemaNodesMax {
		r.say(field, "the schema is too large: %d levels and %d parts are allowed", schemaDepthMax, schemaNodesMax)
		return s
	}
	if t, has := obj["type"]; has {
		s.kind, _ = t.(string)
		if !slices.Contains([]string{"string", "integer", "number", "boolean", "array", "object"}, s.kind) {
			r.say(dotted(field, "type"), "unknown type: %v", t)
		}
	}
	s.fallback, s.hasDefault = obj["default"]
	for key, value := range obj {
		r.word(s, key, value, field, depth)
	}
	return s
}

func (r *schemaReader) word(s *schema, key string, value any, field string, depth int) {
	here := dotted(field, key)
	switch key {
	case "properties":
		s.properties = map[string]*schema{}
		m, ok := value.(map[string]any)
		if !ok && value != nil {
			r.say(here, "must be an object")
		}
		for name, v := range m {
			s.properties[name] = r.schema(v, dotted(here, name), depth+1)
		}
	case "additionalProperties":
		if allowed, isBool := value.(bool); isBool {
			s.closed = !allowed
		} else {
			s.additional = r.schema(value, here, depth+1)
		}
	case "items":
		s.items = r.schema(value, here, depth+1)
	case "not":
		s.not = r.schema(value, here, depth+1)
	case "allOf", "anyOf", "oneOf":
		r.several(s, key, value, here, depth)
	case "required":
		list, _ := value.([]any)
		for _, v := range list {
			if name, ok := v.(string); ok {
				s.required = append(s.required, name)
			}
		}
	case "enum":
		s.enum, _ = value.([]any)
	case "pattern":
		text, _ := value.(string)
		var err error
		if s.pattern, err = regexp.Compile(text); err != nil {
			r.say(here, "is no regular expression: %v", err)
		}
	case "nullable":
		s.nullable = value == true
	case "uniqueItems":
		s.unique = value == true
	case "exclusiveMinimum", "exclusiveMaximum":
		s.exclusive[strings.ToLower(strings.TrimPrefix(key, "exclusive"))] = value == true
	case "x-kubernetes-int-or-string":
		s.intOrString = value == true
	case "x-kubernetes-preserve-unknown-fields":
		s.open = value == true
	case "x-kubernetes-validations":
		r.problems = append(r.problems, schemaProblem{field: here, message: "these rules are not evaluated here; the API server does, where the constraint's CustomResourceDefinition is installed", warning: true})
	default:
		r.other(s, key, value, here)
	}
}

func (r *schemaReader) several(s *schema, key string, value any, field string, depth int) {
	list, _ := value.([]any)
	var all []*schema
	for i, v := range list {
		all = append(all, r.schema(v, fmt.Sprintf("%s[%d]", field, i), depth+1))
	}
	switch key {
	case "allOf":
		s.allOf = all
	case "anyOf":
		s.anyOf = all
	case "oneOf":
		s.oneOf = all
	}
}

func (r *schemaReader) other(s *schema, key string, value any, field string) {
	switch {
	case slices.Contains(boundNames, key):
		f, ok := number(value)
		if !ok {
			r.say(field, "must be a number")
		}
		s.bounds[key] = f
	case slices.Contains(ignored, key), strings.HasPrefix(key, "x-kubernetes-"):
	default:
		r.problems = append(r.problems, schemaProblem{field: field, message: "unknown field", warning: true})
	}
}

// validate fills in defaults and says what is wrong with a value. Nil is no value: it
// becomes the schema's default, and is right without one.
func (s *schema) validate(v any) (any, []schemaProblem) {
	v = s.defaults(v, 0)
	if v == nil {
		return nil, nil
	}
	var wrong []schemaProblem
	s.check(v, "", &wrong)
	return v, wrong
}

func (s *schema) defaults(v any, depth int) any {
	if v == nil && s.hasDefault {
		v = s.fallback
	}
	if depth > schemaDepthMax {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		out := maps.Clone(v)
		for name, p := range s.properties {
			value, has := out[name]
			if value == nil && has && p.nullable {
				continue
			}
			if filled := p.defaults(value, depth+1); filled != nil {
				out[name] = filled
			}
		}
		if s.additional != nil {
			for name, value := range out {
				if s.properties[name] == nil {
					out[name] = s.additional.defaults(value, depth+1)
				}
			}
		}
		return out
	case []any:
		if s.items == nil {
			return v
		}
		out := make([]any, len(v))
		for i := range v {
			out[i] = s.items.defaults(v[i], depth+1)
		}
		return out
	}
	return v
}

// wrongMax is how many problems of one value are told.
const wrongMax = 50

func (s *schema) check(v any, field string, wrong *[]schemaProblem) {
	if len(*wrong) >= wrongMax {
		return
	}
	say := func(format string, args ...any) {
		*wrong = append(*wrong, schemaProblem{field: field, message: fmt.Sprintf(format, args...)})
	}
	if v == nil {
		if !s.nullable && s.kind != "" {
			say("must be %s, it is null", article(s.kind))
		}
		return
	}
	if !s.isKind(v) {
		say("must be %s, it is %s", article(s.wanted()), nameOf(v))
		return
	}
	if len(s.enum) > 0 && !slices.ContainsFunc(s.enum, func(e any) bool { return canonical(e) == canonical(v) }) {
		say("invalid value: %s; it must be one of %s", canonical(v), canonical(s.enum))
	}
	switch v := v.(type) {
	case string:
		s.checkText(v, say)
	case json.Number:
		s.checkNumber(v, say)
	case []any:
		s.checkList(v, field, say, wrong)
	case map[string]any:
		s.checkObject(v, field, say, wrong)
	}
	s.combined(v, field, say, wrong)
}

func (s *schema) wanted() string {
	if s.intOrString {
		return "whole number or string"
	}
	return s.kind
}

func (s *schema) isKind(v any) bool {
	n, isNumber := v.(json.Number)
	f, _ := number(v)
	whole := isNumber && (f == float64(int64(f)) || !strings.ContainsAny(n.String(), ".eE"))
	if s.intOrString {
		_, text := v.(string)
		return text || whole
	}
	ok := true
	switch s.kind {
	case "string":
		_, ok = v.(string)
	case "boolean":
		_, ok = v.(bool)
	case "array":
		_, ok = v.([]any)
	case "object":
		_, ok = v.(map[string]any)
	case "number":
		ok = isNumber
	case "integer":
		ok = whole
	}
	return ok
}

func (s *schema) checkText(v string, say func(string, ...any)) {
	n := float64(len([]rune(v)))
	if least, ok := s.bounds["minLength"]; ok && n < least {
		say("must have at least %v characters", least)
	}
	if most, ok := s.bounds["maxLength"]; ok && n > most {
		say("must have at most %v characters", most)
	}
	if s.pattern != nil && !s.pattern.MatchString(v) {
		say("%q does not match %s", clip(v), s.pattern)
	}
}

func (s *schema) checkNumber(v json.Number, say func(string, ...any)) {
	f, ok := number(v)
	if !ok {
		say("%s is not a number", v)
	}
	if least, ok := s.bounds["minimum"]; ok && (f < least || f == least && s.exclusive["minimum"]) {
		say("must be at least %v, it is %s", least, v)
	}
	if most, ok := s.bounds["maximum"]; ok && (f > most || f == most && s.exclusive["maximum"]) {
		say("must be at most %v, it is %s", most, v)
	}
	if of, ok := s.bounds["multipleOf"]; ok && of > 0 && f/of != float64(int64(f/of)) {
		say("must be a multiple of %v, it is %s", of, v)
	}
}

func (s *schema) checkList(v []any, field string, say func(string, ...any), wrong *[]schemaProblem) {
	if least, ok := s.bounds["minItems"]; ok && float64(len(v)) < least {
		say("must have at least %v items", least)
	}
	if most, ok := s.bounds["maxItems"]; ok && float64(len(v)) > most {
		say("must have at most %v items", most)
	}
	if s.unique {
		seen := map[string]bool{}
		for _, item := range v {
			if key := canonical(item); seen[key] {
				say("has %s twice", clip(key))
			} else {
				seen[key] = true
			}
		}
	}
	for i, item := range v {
		if s.items != nil {
			s.items.check(item, fmt.Sprintf("%s[%d]", field, i), wrong)
		}
	}
}

func (s *schema) checkObject(v map[string]any, field string, say func(string, ...any), wrong *[]schemaProblem) {
	if least, ok := s.bounds["minProperties"]; ok && float64(len(v)) < least {
		say("must have at least %v fields", least)
	}
	if most, ok := s.bounds["maxProperties"]; ok && float64(len(v)) > most {
		say("must have at most %v fields", most)
	}
	for _, name := range s.required {
		if _, ok := v[name]; !ok {
			say("missing field(s): %s", dotted(field, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		if p := s.properties[name]; p != nil {
			p.check(v[name], dotted(field, name), wrong)
		} else if s.additional != nil {
			s.additional.check(v[name], dotted(field, name), wrong)
		} else if s.closed {
			say("unknown field: %s", clip(name))
		}
	}
}

// unnamedMax is how many fields that no schema names are told.
const unnamedMax = 10

// unnamed finds the fields of v that the schema does not name, in order: the API server
// drops them without a word, and a rule that should have read them never objects.
func (s *schema) unnamed(v any, field string, out []string) []string {
	if s.open || len(s.allOf)+len(s.anyOf)+len(s.oneOf) > 0 {
		return out // what is named may stand in another part
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			switch p := s.properties[name]; {
			case len(out) >= unnamedMax:
				return out
			case p != nil:
				out = p.unnamed(v[name], dotted(field, name), out)
			case s.additional != nil:
				out = s.additional.unnamed(v[name], dotted(field, name), out)
			case len(s.properties) > 0 && !s.closed:
				out = append(out, dotted(field, clip(name)))
			}
		}
	case []any:
		for i := range v {
			if s.items != nil {
				out = s.items.unnamed(v[i], fmt.Sprintf("%s[%d]", field, i), out)
			}
		}
	}
	return out
}

func (s *schema) combined(v any, field string, say func(string, ...any), wrong *[]schemaProblem) {
	for _, one := range s.allOf {
		one.check(v, field, wrong)
	}
	met := func(list []*schema) (n int) {
		for _, one := range list {
			var w []schemaProblem
			if one.check(v, field, &w); len(w) == 0 {
				n++
			}
		}
		return n
	}
	if len(s.anyOf) > 0 && met(s.anyOf) == 0 {
		say("has none of the forms that the schema allows (anyOf)")
	}
	if len(s.oneOf) > 0 && met(s.oneOf) != 1 {
		say("must have exactly one of the forms that the schema allows (oneOf)")
	}
	if s.not != nil && met([]*schema{s.not}) == 1 {
		say("has a form that the schema forbids (not)")
	}
}

func article(kind string) string {
	switch kind {
	case "array":
		return "a list"
	case "object":
		return "an object"
	case "integer":
		return "a whole number"
	}
	return "a " + kind
}

func nameOf(v any) string {
	switch v := v.(type) {
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return fmt.Sprintf("the string %q", clip(v))
	case bool:
		return fmt.Sprintf("the boolean %v", v)
	}
	return fmt.Sprintf("the number %v", v)
}

// canonical is v as JSON, for comparison and for messages.
func canonical(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
