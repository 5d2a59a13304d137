package report

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// templateFuncs are the functions that templates may call: Trivy's own, those
// of the sprig library that its templates use, and "report". Nothing of it
// reads files, opens connections or starts programs.
func templateFuncs(r Report, o Options) template.FuncMap {
	m := template.FuncMap{
		"report":        func() Report { return r },
		"appVersion":    func() string { return cmp.Or(o.Version, "unknown") },
		"endOfLife":     func() bool { return r.OS.EOL != nil && *r.OS.EOL },
		"now":           func() time.Time { return o.Now },
		"env":           o.env,
		"getEnv":        o.env,
		"escapeXML":     escapeXML,
		"escapeString":  html.EscapeString,
		"endWithPeriod": func(s string) string { return strings.TrimSuffix(s, ".") + "." },
		"sourceID":      func(s string) string { return s },
		"place":         func(v trivyVulnerability) string { return v.FirstPlace },
	}
	for _, more := range []template.FuncMap{textFuncs(), listFuncs(), numberFuncs(), formFuncs()} {
		for name, f := range more {
			m[name] = f
		}
	}
	return m
}

func escapeXML(s string) (string, error) {
	var b bytes.Buffer
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

// textFuncs have the order of arguments that sprig has: what is worked on comes
// last, so that it can be piped.
func textFuncs() template.FuncMap {
	return template.FuncMap{
		"lower": strings.ToLower, "upper": strings.ToUpper, "trim": strings.TrimSpace, "toLower": strings.ToLower, "toUpper": strings.ToUpper,
		"title":      func(s string) string { return titleWords(s) },
		"trimAll":    func(cut, s string) string { return strings.Trim(s, cut) },
		"trimPrefix": func(p, s string) string { return strings.TrimPrefix(s, p) },
		"trimSuffix": func(p, s string) string { return strings.TrimSuffix(s, p) },
		"hasPrefix":  func(p, s string) bool { return strings.HasPrefix(s, p) },
		"hasSuffix":  func(p, s string) bool { return strings.HasSuffix(s, p) },
		"contains":   func(sub, s string) bool { return strings.Contains(s, sub) },
		"replace":    func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
		"repeat": func(n int, s string) (string, error) {
			if n < 0 || n*len(s) > templateSizeMax {
				return "", fmt.Errorf("repeat %d times is too much", n)
			}
			return strings.Repeat(s, n), nil
		},
		"nospace":  func(s string) string { return strings.Join(strings.Fields(s), "") },
		"quote":    func(v ...any) string { return quoted(v, `"`) },
		"squote":   func(v ...any) string { return quoted(v, "'") },
		"cat":      func(v ...any) string { return strings.TrimSpace(fmt.Sprintln(v...)) },
		"indent":   func(n int, s string) string { return indent(n, s) },
		"nindent":  func(n int, s string) string { return "\n" + indent(n, s) },
		"abbrev":   func(n int, s string) string { return abbrev(n, s) },
		"trunc":    trunc,
		"substr":   func(from, to int, s string) string { return s[min(max(from, 0), len(s)):min(max(to, from, 0), len(s))] },
		"wrap":     wrap,
		"toString": toString,
		"regexMatch": func(re, s string) (bool, error) {
			r, err := regexp.Compile(re)
			return err == nil && r.MatchString(s), err
		},
		"regexFind":       regexFind,
		"regexFindAll":    regexFindAll,
		"regexReplaceAll": regexReplaceAll,
		"regexSplit": func(re, s string, n int) ([]string, error) {
			r, err := regexp.Compile(re)
			if err != nil {
				return nil, err
			}
			return r.Split(s, n), nil
		},
	}
}

func regexFind(re, s string) (string, error) {
	r, err := regexp.Compile(re)
	if err != nil {
		return "", err
	}
	return r.FindString(s), nil
}

func regexFindAll(re, s string, n int) ([]string, error) {
	r, err := regexp.Compile(re)
	if err != nil {
		return nil, err
	}
	return r.FindAllString(s, n), nil
}

func regexReplaceAll(re, s, with string) (string, error) {
	r, err := regexp.Compile(re)
	if err != nil {
		return "", err
	}
	return r.ReplaceAllString(s, with), nil
}

func listFuncs() template.FuncMap {
	return template.FuncMap{
		"list": func(v ...any) []any { return v }, "tuple": func(v ...any) []any { return v },
		"first":  func(v any) any { return at(v, 0) },
		"last":   func(v any) any { return at(v, -1) },
		"rest":   func(v any) any { return rest(v) },
		"append": func(v any, more any) []any { return append(elements(v), more) },
		"has": func(x any, v any) bool {
			return slices.ContainsFunc(elements(v), func(e any) bool { return reflect.DeepEqual(e, x) })
		},
		"uniq":      uniq,
		"join":      func(sep string, v any) string { return strings.Join(texts(v), sep) },
		"sortAlpha": func(v any) []string { return slices.Sorted(slices.Values(texts(v))) },
		"splitList": func(sep, s string) []string { return strings.Split(s, sep) },
		"split": func(sep, s string) map[string]string {
			m := map[string]string{}
			for i, part := range strings.Split(s, sep) {
				m["_"+strconv.Itoa(i)] = part
			}
			return m
		},
		"dict": dict,
		"get":  func(m map[string]any, k string) any { return m[k] },
		"set":  func(m map[string]any, k string, v any) map[string]any { m[k] = v; return m },
		"hasKey": func(m map[string]any, k string) bool {
			_, ok := m[k]
			return ok
		},
		"unset": func(m map[string]any, k string) map[string]any { delete(m, k); return m },
	}
}

func numberFuncs() template.FuncMap {
	return template.FuncMap{
		"add":  func(v ...any) int64 { return fold(0, v, func(a, b int64) int64 { return a + b }) },
		"add1": func(v any) int64 { return toInt(v) + 1 },
		"sub":  func(a, b any) int64 { return toInt(a) - toInt(b) },
		"mul":  func(v ...any) int64 { return fold(1, v, func(a, b int64) int64 { return a * b }) },
		"div": func(a, b any) (int64, error) {
			if toInt(b) == 0 {
				return 0, errors.New("division by zero")
			}
			return toInt(a) / toInt(b), nil
		},
		"mod": func(a, b any) (int64, error) {
			if toInt(b) == 0 {
				return 0, errors.New("division by zero")
			}
			return toInt(a) % toInt(b), nil
		},
		"max":   func(a any, v ...any) int64 { return fold(toInt(a), v, func(x, y int64) int64 { return max(x, y) }) },
		"min":   func(a any, v ...any) int64 { return fold(toInt(a), v, func(x, y int64) int64 { return min(x, y) }) },
		"int":   func(v any) int { return int(toInt(v)) },
		"int64": toInt, "atoi": func(s string) int { n, _ := strconv.Atoi(s); return n },
		"float64": func(v any) float64 { f, _ := strconv.ParseFloat(toString(v), 64); return f },
		"until":   func(n int) []int { return count(0, n) },
		"seq":     func(n int) []int { return count(1, n+1) },
	}
}

func formFuncs() template.FuncMap {
	return template.FuncMap{
		"default": func(d any, v ...any) any {
			if len(v) == 0 || empty(v[0]) {
				return d
			}
			return v[0]
		},
		"empty": empty,
		"coalesce": func(v ...any) any {
			for _, x := range v {
				if !empty(x) {
					return x
				}
			}
			return nil
		},
		"ternary": func(yes, no any, cond bool) any {
			if cond {
				return yes
			}
			return no
		},
		"toJson":       func(v any) (string, error) { return toJSON(v, "") },
		"toRawJson":    func(v any) (string, error) { return toJSON(v, "") },
		"toPrettyJson": func(v any) (string, error) { return toJSON(v, "  ") },
		"b64enc":       func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"sha1sum":      func(s string) string { sum := sha1.Sum([]byte(s)); return hex.EncodeToString(sum[:]) }, // a name, no proof
		"sha256sum":    func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) },
		"sha512sum":    func(s string) string { sum := sha512.Sum512([]byte(s)); return hex.EncodeToString(sum[:]) },
		"date":         func(layout string, v any) string { return date(layout, v) },
		"dateInZone": func(layout string, v any, zone string) string {
			loc, err := time.LoadLocation(zone)
			if t, ok := toTime(v); ok && err == nil {
				return t.In(loc).Format(layout)
			}
			return date(layout, v)
		},
		"fail": func(msg string) (string, error) { return "", errors.New(msg) },
		"severityScore": func(s string) float64 {
			sev, _ := gatehouse.ParseSeverity(s)
			return Score(Finding{Severity: sev})
		},
	}
}

func titleWords(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		r := []rune(w)
		words[i] = strings.ToUpper(string(r[:1])) + string(r[1:])
	}
	return strings.Join(words, " ")
}

func quoted(v []any, mark string) string {
	var out []string
	for _, x := range v {
		switch {
		case x == nil:
		case mark == `"`:
			out = append(out, strconv.Quote(toString(x)))
		default:
			out = append(out, mark+toString(x)+mark)
		}
	}
	return strings.Join(out, " ")
}

func indent(n int, s string) string {
	pad := strings.Repeat(" ", min(max(n, 0), 200))
	return pad + strings.ReplaceAll(s, "\n", "\n"+pad)
}

func abbrev(n int, s string) string {
	const least = 4
	r := []rune(s)
	if n < least || len(r) <= n {
		return s
	}
	return string(r[:n-3]) + "..."
}

func trunc(n int, s string) string {
	r := []rune(s)
	switch {
	case n < 0 && len(r)+n > 0:
		return string(r[len(r)+n:])
	case n >= 0 && len(r) > n:
		return string(r[:n])
	}
	return s
}

func wrap(n int, s string) string {
	var b strings.Builder
	used := 0
	for _, w := range strings.Fields(s) {
		switch {
		case used == 0:
		case used+1+len(w) > n:
			b.WriteByte('\n')
			used = 0
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(w)
		used += len(w)
	}
	return b.String()
}

func toString(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
	case error:
		return v.Error()
	}
	return fmt.Sprint(v)
}

func toInt(v any) int64 {
	switch x := reflect.ValueOf(v); x.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return x.Int()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int64(x.Uint())
	case reflect.Float32, reflect.Float64:
		return int64(x.Float())
	case reflect.String:
		n, _ := strconv.ParseInt(x.String(), 10, 64)
		return n
	}
	return 0
}

func fold(start int64, v []any, f func(a, b int64) int64) int64 {
	for _, x := range v {
		start = f(start, toInt(x))
	}
	return start
}

func count(from, to int) []int {
	const countMax = 100_000
	var out []int
	for i := from; i < to && len(out) < countMax; i++ {
		out = append(out, i)
	}
	return out
}

func elements(v any) []any {
	x := reflect.ValueOf(v)
	if x.Kind() != reflect.Slice && x.Kind() != reflect.Array {
		return nil
	}
	var out []any
	for i := range x.Len() {
		out = append(out, x.Index(i).Interface())
	}
	return out
}

func texts(v any) []string {
	var out []string
	for _, e := range elements(v) {
		out = append(out, toString(e))
	}
	return out
}

func at(v any, i int) any {
	list := elements(v)
	if i < 0 {
		i += len(list)
	}
	if i < 0 || i >= len(list) {
		return nil
	}
	return list[i]
}

func rest(v any) []any {
	list := elements(v)
	if len(list) == 0 {
		return nil
	}
	return list[1:]
}

func uniq(v any) []any {
	var out []any
	for _, e := range elements(v) {
		if !slices.ContainsFunc(out, func(o any) bool { return reflect.DeepEqual(o, e) }) {
			out = append(out, e)
		}
	}
	return out
}

func dict(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		var v any = ""
		if i+1 < len(pairs) {
			v = pairs[i+1]
		}
		m[toString(pairs[i])] = v
	}
	return m
}

func empty(v any) bool {
	ok, _ := template.IsTrue(v)
	return !ok
}

func toJSON(v any, pad string) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", pad)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

func toTime(v any) (time.Time, bool) {
	switch t := v.(type) {
	case time.Time:
		return t, true
	case *time.Time:
		if t != nil {
			return *t, true
		}
	}
	return time.Time{}, false
}

func date(layout string, v any) string {
	if t, ok := toTime(v); ok {
		return t.Format(layout)
	}
	return ""
}
