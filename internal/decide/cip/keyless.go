package cip

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

const identitiesMax = 1_000

// keyless reads whose certificates count.
func (p *parser) keyless(path string, a authority, out *authorityRule) {
	k := a.Keyless
	if k.URL != "" && k.CACert != nil {
		p.problem(path, "expected exactly one, got both: "+path+".ca-cert, "+path+".url", "")
	}
	if len(k.Identities) == 0 {
		p.missing(path, "identities")
	}
	if len(k.Identities) > identitiesMax {
		p.problem(path+".identities", fmt.Sprintf("has %d entries, %d are allowed", len(k.Identities), identitiesMax), "use a regular expression")
		return
	}
	out.Keyless = &gatehouse.Keyless{
		IgnoreSCT: k.IgnoreSCT,
		// A signed timestamp proves the time as well as a log does; both are asked
		// for where both are named.
		IgnoreLog: a.Timestamp != nil && a.CTLog == nil,
	}
	if k.IgnoreSCT {
		p.warn(path+".insecureIgnoreSCT", "certificates count that no certificate transparency log has seen", "delete it if the authority has such a log")
	}
	for i, id := range k.Identities {
		at := fmt.Sprintf("%s.identities[%d]", path, i)
		p.pair(at, "issuer", id.Issuer, id.IssuerRegExp)
		p.pair(at, "subject", id.Subject, id.SubjectRegExp)
		out.Keyless.Identities = append(out.Keyless.Identities, gatehouse.IdentityRule{
			Issuer: id.Issuer, IssuerRegExp: anywhere(id.IssuerRegExp),
			Subject: id.Subject, SubjectRegExp: anywhere(id.SubjectRegExp),
		})
	}
}

// pair checks a value that is given either plainly or as an expression.
func (p *parser) pair(path, name, plain, expr string) {
	field := path + "." + name + "RegExp"
	switch {
	case plain == "" && expr == "":
		p.problem(path, "missing field(s): "+path+"."+name+", "+field, "")
	case plain != "" && expr != "":
		p.problem(path, "expected exactly one, got both: "+path+"."+name+", "+field, "")
	case expr != "":
		if _, err := regexp.Compile(expr); err != nil {
			p.invalid(field, expr, "regex is invalid: "+err.Error(), "")
		} else if !anchored(expr) {
			p.warn(field, "the expression matches anywhere in the value: "+clip(expr), "write ^("+strings.TrimSuffix(strings.TrimPrefix(clip(expr), "^"), "$")+")$ to match the whole of it, and dots as \\.")
		}
	}
}

// anchored reports whether an expression can match whole values only: it begins
// with ^ and ends with $ as a whole, not in one of its alternatives.
func anchored(expr string) bool {
	re, err := syntax.Parse(expr, syntax.Perl)
	return err == nil && re.Op == syntax.OpConcat && re.Sub[0].Op == syntax.OpBeginText && re.Sub[len(re.Sub)-1].Op == syntax.OpEndText
}

// anywhere turns an expression of a ClusterImagePolicy, which may match any part
// of a value, into one for the whole value.
func anywhere(expr string) string {
	if expr == "" || anchored(expr) {
		return expr
	}
	return "(?s:.*)(?:" + expr + ")(?s:.*)"
}
