// Package labels reads Kubernetes' label selectors and asks them: a selector as JSON
// has it goes in, whether labels meet it comes out.
package labels

import (
	"fmt"
	"slices"
	"strings"
)

// requirementsMax bounds the conditions of one selector.
const requirementsMax = 1_000

// Selector is conditions of which all must hold. The zero Selector has none, and
// selects everything.
type Selector struct{ requirements []Requirement }

// Requirement is one condition on a label. An operator other than In, NotIn, Exists
// and DoesNotExist holds never.
type Requirement struct {
	Key, Operator string
	Values        []string
}

// New makes the Selector of requirements that were read elsewhere, and owns the slice
// from then on.
func New(requirements []Requirement) Selector {
	slices.SortFunc(requirements, func(a, b Requirement) int { return strings.Compare(a.Key+" "+a.Operator, b.Key+" "+b.Operator) })
	return Selector{requirements}
}

// Equal is the condition that matchLabels writes.
func Equal(key, value string) Requirement { return Requirement{key, "In", []string{value}} }

// Problem is one thing wrong with a selector, at a field path inside it.
type Problem struct{ Field, Message string }

// Parse reads matchLabels and matchExpressions.
func Parse(v any) (s Selector, problems []Problem) {
	say := func(field, format string, args ...any) {
		problems = append(problems, Problem{field, fmt.Sprintf(format, args...)})
	}
	obj, ok := v.(map[string]any)
	if !ok {
		say("", "must be an object {matchLabels, matchExpressions}")
		return s, problems
	}
	for key := range obj {
		if key != "matchLabels" && key != "matchExpressions" {
			say(key, "unknown field; a label selector has matchLabels and matchExpressions")
		}
	}
	var requirements []Requirement
	if m, ok := obj["matchLabels"].(map[string]any); ok {
		for key, value := range m {
			text, ok := value.(string)
			if !ok {
				say("matchLabels."+key, "must be a string")
				continue
			}
			requirements = append(requirements, Equal(key, text))
		}
	} else if obj["matchLabels"] != nil {
		say("matchLabels", "must be an object of strings")
	}
	list, ok := obj["matchExpressions"].([]any)
	if !ok && obj["matchExpressions"] != nil {
		say("matchExpressions", "must be a list")
	}
	for i, item := range list {
		r, field, message := expression(item)
		if message != "" {
			say(strings.TrimSuffix(fmt.Sprintf("matchExpressions[%d].%s", i, field), "."), "%s", message)
			continue
		}
		requirements = append(requirements, r)
	}
	if len(requirements) > requirementsMax {
		say("", "has more than %d conditions", requirementsMax)
	}
	return New(requirements), problems
}

func expression(v any) (r Requirement, field, message string) {
	obj, ok := v.(map[string]any)
	if !ok {
		return r, "", "must be an object {key, operator, values}"
	}
	if r.Key, _ = obj["key"].(string); r.Key == "" {
		return r, "key", "is missing"
	}
	r.Operator, _ = obj["operator"].(string)
	if !slices.Contains([]string{"In", "NotIn", "Exists", "DoesNotExist"}, r.Operator) {
		return r, "operator", "must be In, NotIn, Exists or DoesNotExist"
	}
	values, ok := obj["values"].([]any)
	if !ok && obj["values"] != nil {
		return r, "values", "must be a list of strings"
	}
	for _, v := range values {
		text, ok := v.(string)
		if !ok {
			return r, "values", "must be a list of strings"
		}
		r.Values = append(r.Values, text)
	}
	if set := r.Operator == "In" || r.Operator == "NotIn"; set != (len(r.Values) > 0) {
		return r, "values", "must be given for In and NotIn, and only for them"
	}
	return r, "", ""
}

// Matches reports whether labels meet every condition.
func (s Selector) Matches(labels map[string]string) bool {
	for _, r := range s.requirements {
		value, has := labels[r.Key]
		ok := false
		switch r.Operator {
		case "In":
			ok = has && slices.Contains(r.Values, value)
		case "NotIn":
			ok = !has || !slices.Contains(r.Values, value)
		case "Exists":
			ok = has
		case "DoesNotExist":
			ok = !has
		}
		if !ok {
			return false
		}
	}
	return true
}

// Of returns the labels of an object.
func Of(obj map[string]any) map[string]string {
	meta, _ := obj["metadata"].(map[string]any)
	raw, _ := meta["labels"].(map[string]any)
	out := make(map[string]string, len(raw))
	for key, value := range raw {
		if text, ok := value.(string); ok {
			out[key] = text
		}
	}
	return out
}
