// Package rego loads and evaluates rules in OPA's policy language: the text of
// a module goes in, a decide.Policy or its problems come out. A module is any
// package with rules deny, violation or warn, in Rego v1 or v0. It sees the
// object under input.review, input.request and input.object, and it cannot
// reach the network, the environment or the clock of the machine.
//
// A rule about Pods also judges the Pods that a workload would create. An
// error while a rule is evaluated denies; so does a builtin that fails, which
// plain OPA treats as "undefined", that is: as no objection.
package rego

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// Limits of one evaluation.
const (
	evalTimeMax   = 2 * time.Second // for all rules of a module on one object
	objectionsMax = 100             // messages of one module
)

// Policy is one module, compiled. It is safe for concurrent use.
type Policy struct {
	name    string
	path    string
	version string // "v1" or "v0"
	entries []entry
}

// entry is one rule that speaks.
type entry struct {
	name  string
	line  int
	warns bool
	query rego.PreparedEvalQuery
}

// Name is the module's package without "data.".
func (p *Policy) Name() string { return p.name }

// RegoVersion is the version of the language that the module is written in,
// "v1" or "v0".
func (p *Policy) RegoVersion() string { return p.version }

// Needs nothing: rules see the object only.
func (p *Policy) Needs(gatehouse.Request) []gatehouse.Need { return nil }

// Judge evaluates every rule on the object and on the Pods that it would
// create, and collects what they say.
func (p *Policy) Judge(ctx context.Context, req gatehouse.Request) decide.Judgement {
	ctx, cancel := context.WithTimeout(ctx, evalTimeMax)
	defer cancel()
	// All modules of a set see the same: it is built once.
	in := decide.Once(ctx, inputsKey{}, func() inputs { return inputsOf(req) })
	if in.err != nil {
		return p.broken(in.err)
	}
	j := decide.Judgement{Outcome: decide.Passed}
	seen := map[string]bool{}
	for _, in := range in.all {
		for _, e := range p.entries {
			messages, err := e.eval(ctx, in, req.Now)
			if err != nil {
				return p.broken(err)
			}
			for _, m := range messages {
				if key := fmt.Sprint(e.warns, m); seen[key] || len(seen) >= objectionsMax {
					continue
				} else {
					seen[key] = true
				}
				j.Reasons = append(j.Reasons, p.reason(e, m, req))
				if !e.warns {
					j.Outcome = decide.Failed
				}
			}
		}
	}
	return j
}

// reason names the image that the message speaks of, if it names one.
func (p *Policy) reason(e entry, message string, req gatehouse.Request) gatehouse.Reason {
	r := gatehouse.Reason{Code: decide.CodeRuleDenied, Message: message, Hint: fmt.Sprintf("the rule is %s in %s:%d", e.name, p.path, e.line)}
	if e.warns {
		r.Verdict, r.Code = gatehouse.Warn, decide.CodeRuleWarned
	}
	for _, f := range req.Images {
		if len(f.Written) > len(r.Image) && strings.Contains(message, f.Written) {
			r.Image, r.Field = f.Written, f.Field
		}
	}
	return r
}

func (p *Policy) broken(err error) decide.Judgement {
	message := "the rule could not be evaluated: " + err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		message = "the rule could not be evaluated in time"
	}
	return decide.Judgement{Outcome: decide.Failed, Reasons: []gatehouse.Reason{{
		Code: decide.CodeRuleError, Message: message, Hint: "repair the rule in " + p.path,
	}}}
}

func (e entry) eval(ctx context.Context, in ast.Value, now time.Time) ([]string, error) {
	results, err := e.query.Eval(ctx, rego.EvalParsedInput(in), rego.EvalTime(now))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	var messages []string
	for _, r := range results {
		for _, x := range r.Expressions {
			messages = append(messages, messagesOf(e.name, x.Value)...)
		}
	}
	return messages, nil
}

// messagesOf reads what a rule yields: a set of texts or of objects with msg,
// a single text, or true. Anything that is not clearly "no objection" is one.
func messagesOf(rule string, v any) []string {
	switch v := v.(type) {
	case nil:
		return []string{"the rule " + rule + " yields null"}
	case bool:
		if !v {
			return nil
		}
		return []string{"the rule " + rule + " holds"}
	case string:
		return []string{v}
	case []any:
		var all []string
		for _, item := range v {
			all = append(all, messageOf(rule, item))
		}
		return all
	case map[string]any:
		if _, ok := v["msg"].(string); ok {
			return []string{messageOf(rule, v)}
		}
		var all []string
		for key, item := range v {
			if item == false {
				continue
			}
			all = append(all, key)
		}
		slices.Sort(all)
		return all
	}
	return []string{fmt.Sprintf("the rule %s yields %v", rule, v)}
}

func messageOf(rule string, item any) string {
	switch item := item.(type) {
	case string:
		return item
	case map[string]any:
		if msg, ok := item["msg"].(string); ok {
			return msg
		}
	}
	return fmt.Sprintf("the rule %s yields %v", rule, item)
}
