package vex

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse"
)

// Bounds on an ignore file.
const (
	IgnoreSizeMax = 4 << 20 // bytes
	rulesMax      = 50_000
	rulePartsMax  = 1000 // paths or package URLs of one rule
)

// IgnoreFiles are the names that are looked for, in this order, where no file is
// named. All that exist count.
var IgnoreFiles = []string{".gatehouseignore", ".trivyignore", ".trivyignore.yaml"}

// Ignore is what an ignore file says.
type Ignore struct {
	Source string
	Rules  []IgnoreRule
	// Expired tells which rules no longer hold, one sentence each. They are not
	// among Rules.
	Expired []string
}

// IgnoreRule accepts a finding. All that is set must fit.
type IgnoreRule struct {
	Kind    gatehouse.Kind // empty: any
	ID      string         // or an alias
	Paths   []string       // globs on the path of the file or package
	PURLs   []gatehouse.PURL
	Reason  string
	Expires time.Time // the first moment at which it no longer holds; zero = never
	Line    int
}

// ParseIgnore reads an ignore file: YAML where the name ends in .yaml, .yml or
// is .gatehouseignore, else a list of ids. Rules that have expired at now are
// told, not applied. Errors: CodeInvalid with the line, CodeTooLarge.
func ParseIgnore(name string, data []byte, now time.Time) (Ignore, error) {
	if len(data) > IgnoreSizeMax {
		return Ignore{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s is larger than %d bytes", name, IgnoreSizeMax)
	}
	out := Ignore{Source: name}
	base := path.Base(strings.ReplaceAll(name, `\`, "/"))
	var rules []IgnoreRule
	var err error
	if ext := path.Ext(base); ext == ".yaml" || ext == ".yml" || base == ".gatehouseignore" {
		rules, err = ignoreYAML(name, data)
	} else {
		rules, err = ignoreList(name, data)
	}
	if err != nil {
		return Ignore{}, err
	}
	if len(rules) > rulesMax {
		return Ignore{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d rules", name, rulesMax)
	}
	for _, r := range rules {
		if !r.Expires.IsZero() && !now.Before(r.Expires) {
			out.Expired = append(out.Expired, fmt.Sprintf("%s:%d: %s is not ignored any more: the rule expired at %s", name, r.Line, clip(r.ID, 120), r.Expires.Format(time.RFC3339)))
			continue
		}
		out.Rules = append(out.Rules, r)
	}
	return out, nil
}

// ignoreList reads Trivy's plain form: one id per line, "exp:DATE" behind it,
// comments with #, of which those right above an id are its reason.
func ignoreList(name string, data []byte) ([]IgnoreRule, error) {
	var rules []IgnoreRule
	var reason []string
	in := bufio.NewScanner(bytes.NewReader(data))
	in.Buffer(nil, IgnoreSizeMax+1)
	for line := 1; in.Scan(); line++ {
		text := strings.TrimSpace(strings.TrimPrefix(in.Text(), "\ufeff"))
		if comment, ok := strings.CutPrefix(text, "#"); ok {
			reason = append(reason, strings.TrimSpace(comment))
			continue
		}
		if text, comment, _ := strings.Cut(text, " #"); text != "" {
			if c := strings.TrimSpace(comment); c != "" {
				reason = []string{c}
			}
			rule := IgnoreRule{Line: line, Reason: clip(strings.Join(reason, " "), 2000)}
			for i, word := range strings.Fields(text) {
				date, isDate := strings.CutPrefix(word, "exp:")
				switch {
				case i == 0 && !isDate:
					rule.ID = word
				case isDate && i > 0:
					var err error
					if rule.Expires, err = expiry(date); err != nil {
						return nil, bad(name, line, "%q is not a date", clip(word, 80)).WithHint("write it as exp:2027-01-31")
					}
				default:
					return nil, bad(name, line, "%q is not understood", clip(word, 80)).
						WithHint("one id per line, and exp:2027-01-31 behind it; paths and package URLs need .gatehouseignore or .trivyignore.yaml")
				}
			}
			rules = append(rules, rule)
		}
		reason = nil
	}
	return rules, in.Err()
}

func bad(name string, line int, format string, args ...any) *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: %s", name, line, fmt.Sprintf(format, args...))
}

// expiry reads a day, at whose beginning (UTC) the rule ends as in Trivy, or a
// moment.
func expiry(s string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	return t.UTC(), err
}

// ignoreKinds are the lists of the YAML form. Malware is our own.
var ignoreKinds = map[string]gatehouse.Kind{
	"vulnerabilities": gatehouse.KindVulnerability, "misconfigurations": gatehouse.KindMisconfig, "secrets": gatehouse.KindSecret,
	"licenses": gatehouse.KindLicense, "malware": gatehouse.KindMalware,
}

// ignoreYAML reads Trivy's YAML form. Names that are not known are errors: a
// misspelt "paths" would ignore more than its author wanted.
func ignoreYAML(name string, data []byte) ([]IgnoreRule, error) {
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not YAML: %w", name, err).
			WithHint("a plain list of ids belongs into .trivyignore")
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds more than one document", name)
	}
	top := root.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return nil, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, bad(name, top.Line, "the file is not a map of vulnerabilities, misconfigurations, secrets, licenses and malware").
			WithHint("a plain list of ids belongs into .trivyignore")
	}
	var rules []IgnoreRule
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, list := top.Content[i], top.Content[i+1]
		kind, ok := ignoreKinds[key.Value]
		if !ok {
			return nil, bad(name, key.Line, "%q is not known", clip(key.Value, 80)).WithHint("use vulnerabilities, misconfigurations, secrets, licenses or malware")
		}
		if list.Kind == yaml.ScalarNode && list.Tag == "!!null" {
			continue
		}
		if list.Kind != yaml.SequenceNode {
			return nil, bad(name, list.Line, "%s is not a list", key.Value)
		}
		if len(rules)+len(list.Content) > rulesMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d rules", name, rulesMax)
		}
		for _, n := range list.Content {
			rule, err := ignoreEntry(name, kind, n)
			if err != nil {
				return nil, err
			}
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

func ignoreEntry(name string, kind gatehouse.Kind, n *yaml.Node) (IgnoreRule, error) {
	rule := IgnoreRule{Kind: kind, Line: n.Line}
	if n.Kind != yaml.MappingNode {
		return rule, bad(name, n.Line, "the entry is not a map").WithHint("write it as - id: CVE-…")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		var err error
		switch key.Value {
		case "id":
			err = value.Decode(&rule.ID)
		case "statement":
			err = value.Decode(&rule.Reason)
			rule.Reason = clip(rule.Reason, 2000)
		case "paths":
			err = value.Decode(&rule.Paths)
			for _, p := range rule.Paths {
				if _, bad := path.Match(strings.ReplaceAll(p, "**", "*"), ""); bad != nil {
					err = fmt.Errorf("%q is not a glob", clip(p, 80))
				}
			}
		case "purls":
			var texts []string
			err = value.Decode(&texts)
			for _, s := range texts {
				u, e := gatehouse.ParsePURL(s)
				if e != nil {
					err = e
				}
				rule.PURLs = append(rule.PURLs, u)
			}
		case "expired_at":
			// YAML takes 2027-01-31 for a time, and quotes make it a text.
			rule.Expires, err = expiry(value.Value)
		default:
			return rule, bad(name, key.Line, "%q is not known", clip(key.Value, 80)).WithHint("use id, paths, purls, expired_at and statement")
		}
		if err != nil {
			return rule, bad(name, value.Line, "%s: %v", key.Value, err)
		}
	}
	switch {
	case strings.TrimSpace(rule.ID) == "":
		return rule, bad(name, n.Line, "the entry has no id")
	case len(rule.Paths) > rulePartsMax || len(rule.PURLs) > rulePartsMax:
		return rule, bad(name, n.Line, "the entry has more than %d paths or package URLs", rulePartsMax)
	}
	return rule, nil
}

// Apply returns findings with Suppressed set on those that a rule accepts. What
// was suppressed before stays as it was. findings is not changed.
func (g Ignore) Apply(findings []gatehouse.Finding, d gatehouse.Distro) []gatehouse.Finding {
	byID := map[string][]int{}
	for i, r := range g.Rules {
		byID[strings.ToUpper(r.ID)] = append(byID[strings.ToUpper(r.ID)], i)
	}
	return suppress(findings, func(f gatehouse.Finding) *gatehouse.Suppression {
		for _, id := range append([]string{f.ID}, f.Aliases...) {
			for _, i := range byID[strings.ToUpper(id)] {
				if r := g.Rules[i]; r.fits(f, d) {
					return &gatehouse.Suppression{By: gatehouse.SuppressedByIgnoreFile, Reason: r.Reason, Source: g.Source, Expires: r.Expires}
				}
			}
		}
		return nil
	})
}

func (r IgnoreRule) fits(f gatehouse.Finding, d gatehouse.Distro) bool {
	kind := f.Kind
	if kind == "" {
		kind = gatehouse.KindVulnerability
	}
	if r.Kind != "" && r.Kind != kind {
		return false
	}
	if len(r.Paths) > 0 && !slices.ContainsFunc(r.Paths, func(glob string) bool { return globMatch(strings.TrimLeft(glob, "/"), f.Package.Path) }) {
		return false
	}
	t := newTarget(f.Package, d)
	return len(r.PURLs) == 0 || slices.ContainsFunc(r.PURLs, func(u gatehouse.PURL) bool { return isPackage(u, t, d) })
}

// suppress copies findings at the first one that why gives a reason for.
func suppress(findings []gatehouse.Finding, why func(gatehouse.Finding) *gatehouse.Suppression) []gatehouse.Finding {
	out, changed := findings, false
	for i, f := range findings {
		if f.Suppressed != nil {
			continue
		}
		if s := why(f); s != nil {
			if !changed {
				out, changed = slices.Clone(findings), true
			}
			out[i].Suppressed = s
		}
	}
	return out
}

// globMatch matches a path with a glob in which ** stands for any number of
// folders, also none, and * for anything but a slash. Its time is bounded by the
// product of both lengths.
func globMatch(glob, name string) bool {
	pattern, parts := strings.Split(glob, "/"), strings.Split(name, "/")
	// reach[j]: the pattern so far matches the first j parts.
	reach := make([]bool, len(parts)+1)
	reach[0] = true
	for _, p := range pattern {
		next := make([]bool, len(parts)+1)
		for j := range reach {
			switch {
			case p == "**":
				next[j] = reach[j] || j > 0 && next[j-1]
			case j > 0 && reach[j-1]:
				ok, err := path.Match(p, parts[j-1])
				next[j] = ok && err == nil
			}
		}
		reach = next
	}
	return reach[len(parts)]
}
