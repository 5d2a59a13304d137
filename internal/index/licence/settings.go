package licence

import (
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// namesMax bounds the licences that settings name.
const namesMax = 10_000

// Settings are a [Policy] as people write one: licences by class, each by its SPDX
// id or by the text that packages have. An id without -only or -or-later
// (GPL-3.0) means both. What no list names keeps its class.
type Settings struct {
	Forbidden, Restricted, Reciprocal, Notice, Permissive, Unencumbered []string
	Ignored                                                             []string
}

// Policy reads the settings. strange are those names that are no id known here:
// they are compared with what packages say, and may be mistyped.
// Errors: CodeInvalid, where a licence has two classes or a name is none.
func (s Settings) Policy() (p Policy, strange []string, err error) {
	p = Policy{Classes: map[string]Class{}, Ignored: s.Ignored}
	n := len(s.Ignored)
	for _, list := range []struct {
		class Class
		names []string
	}{
		{Forbidden, s.Forbidden}, {Restricted, s.Restricted}, {Reciprocal, s.Reciprocal},
		{Notice, s.Notice}, {Permissive, s.Permissive}, {Unencumbered, s.Unencumbered},
	} {
		n += len(list.names)
		for _, name := range list.names {
			if err := checkName(name); err != nil {
				return Policy{}, nil, err
			}
			for _, key := range keys(name) {
				if other, ok := p.Classes[key]; ok && other != list.class {
					return Policy{}, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "licence %s is both %s and %s", name, other, list.class)
				}
				p.Classes[key] = list.class
			}
			if ClassOf(Normal(name)) == Unknown {
				strange = append(strange, name)
			}
		}
	}
	for _, name := range s.Ignored {
		if err := checkName(name); err != nil {
			return Policy{}, nil, err
		}
		if ClassOf(Normal(name)) == Unknown {
			strange = append(strange, name)
		}
	}
	if n > namesMax {
		return Policy{}, nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "more than %d licences are named", namesMax)
	}
	return p, strange, nil
}

func checkName(name string) error {
	e := Parse(name)
	switch {
	case e.Op != "":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%q is more than one licence", cut(name)).WithHint("name each by itself; packages' expressions are taken apart")
	case e.ID == "":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "a licence has no name")
	}
	return nil
}

// keys are what a name in a policy is compared with, in lower case.
func keys(name string) []string {
	lower := strings.ToLower(clean(name))
	if e := Parse(name); e.Exception != "" { // not the licence without it
		return []string{lower, strings.ToLower(e.String())}
	}
	out := []string{lower, strings.ToLower(Normal(name))}
	if e, ok := table[lower]; ok && e.versions {
		out = append(out, lower+"-only", lower+"-or-later")
	}
	return out
}

// Strange says of names that no id is known for them, for people; empty for none.
func Strange(names []string) string {
	if len(names) == 0 {
		return ""
	}
	const shown = 5
	text := strings.Join(names[:min(len(names), shown)], ", ")
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return "no SPDX id is known for " + text + ": compared with what packages say, word for word"
}
