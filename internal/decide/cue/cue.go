// Package cue loads and evaluates policies about JSON documents that are written
// in CUE: the text of a policy goes in, a decide.Compliance or its problems come
// out. A document complies when it unifies with the policy without a
// contradiction, as in cosign and policy-controller. What the policy does not
// speak of, and fields that the document does not have, contradict nothing; a
// policy that wants a field to be there writes field!: instead of field:.
//
// A policy may import CUE's own packages, except those of tools, which run
// commands and read files. It reaches no file and no module.
package cue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/build"
	"cuelang.org/go/cue/cuecontext"
	cueerrors "cuelang.org/go/cue/errors"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"
	cuejson "cuelang.org/go/encoding/json"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// Limits.
const (
	// TextSizeMax bounds a policy in bytes.
	TextSizeMax = 1 << 20
	// DocumentSizeMax bounds a document in bytes: CUE holds many times that.
	DocumentSizeMax = 8 << 20

	evalTimeMax = 2 * time.Second
	depthMax    = 200 // of a document
	contradict  = 5   // contradictions that an answer names
	problemsMax = 20
	// usesMax is how often a compiled policy is used before it is compiled anew:
	// a context of CUE keeps something of all that it has ever seen.
	usesMax = 64
	// stuckMax is how many evaluations of one policy may have run out of time and
	// still go on. CUE cannot be stopped from outside, so further ones are refused.
	stuckMax = 4
)

// Policy is one policy. It is safe for concurrent use.
type Policy struct {
	file string
	text string
	free sync.Pool     // *compiled
	busy chan struct{} // a place for each evaluation that may get stuck
}

// compiled is the policy in a context of CUE, which one evaluation at a time may
// use.
type compiled struct {
	ctx   *cue.Context
	value cue.Value
	uses  int
}

var _ decide.Compliance = (*Policy)(nil)

// Load compiles one policy. Lines of the problems are those of text. With problems
// there is no Policy.
func Load(file, text string) (p *Policy, problems []decide.Problem) {
	defer func() {
		if r := recover(); r != nil {
			p, problems = nil, []decide.Problem{{Path: file, Message: "the CUE policy cannot be compiled"}}
		}
	}()
	if len(text) > TextSizeMax {
		return nil, []decide.Problem{{Path: file, Message: fmt.Sprintf("the policy has %d bytes, %d are allowed", len(text), TextSizeMax)}}
	}
	if problems := check(file, text); len(problems) > 0 {
		return nil, problems
	}
	p = &Policy{file: file, text: text, busy: make(chan struct{}, stuckMax)}
	c, err := p.compile()
	if err == nil {
		// What only the document decides is no error yet.
		err = c.value.Validate()
	}
	if err != nil {
		return nil, tell(file, "CUE error", err)
	}
	p.free.Put(c)
	return p, nil
}

// check refuses what cannot be parsed, and what reaches out of the policy.
func check(file, text string) (problems []decide.Problem) {
	f, err := parser.ParseFile(file, text)
	if err != nil {
		return tell(file, "CUE syntax error", err)
	}
	add := func(pos token.Pos, message, hint string) {
		problems = append(problems, decide.Problem{Path: file, Line: pos.Line(), Message: message, Hint: hint})
	}
	for spec := range f.ImportSpecs() {
		name, err := strconv.Unquote(spec.Path.Value)
		first, _, _ := strings.Cut(name, "/")
		switch {
		case err != nil:
			add(spec.Pos(), "the name of the import cannot be read", "")
		case first == "tool":
			add(spec.Pos(), "import "+clip(name)+" is not available here", "a policy judges the document alone; it runs nothing and reads no files")
		case strings.Contains(first, "."):
			add(spec.Pos(), "import "+clip(name)+" is not available here", "a policy imports CUE's own packages only, such as list, strings, struct, time; write the rest into the policy")
		}
	}
	var empty = true
	ast.Walk(f, func(n ast.Node) bool {
		if a, ok := n.(*ast.Attribute); ok {
			if name, _ := a.Split(); name == "extern" || name == "embed" {
				add(a.Pos(), "@"+name+" is not available here", "a policy reads no files; write the values into it")
			}
		}
		return true
	}, nil)
	for _, d := range f.Decls {
		switch d.(type) {
		case *ast.Package, *ast.ImportDecl, *ast.CommentGroup, *ast.Attribute:
		default:
			empty = false
		}
	}
	if empty {
		problems = append(problems, decide.Problem{Path: file, Message: "the CUE policy says nothing, so everything would pass", Hint: "write what the document has to have, such as predicateType: \"…\""})
	}
	return problems
}

// compile builds the policy in a context of its own.
func (p *Policy) compile() (*compiled, error) {
	ctx := cuecontext.New()
	f, err := parser.ParseFile(p.file, p.text)
	if err != nil {
		return nil, err
	}
	// An instance without a loader finds CUE's own packages only.
	instance := build.NewContext().NewInstance("", nil)
	if err := instance.AddSyntax(f); err != nil {
		return nil, err
	}
	if err := instance.Complete(); err != nil {
		return nil, err
	}
	return &compiled{ctx: ctx, value: ctx.BuildInstance(instance)}, nil
}

// Eval implements [decide.Compliance]. CUE knows no time of day, so now is unused.
func (p *Policy) Eval(ctx context.Context, document []byte, _ time.Time) (decide.Answer, error) {
	if len(document) > DocumentSizeMax {
		return decide.Answer{}, fmt.Errorf("the document has %d bytes, a policy in CUE reads %d", len(document), DocumentSizeMax)
	}
	if err := shallow(document); err != nil {
		return decide.Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, evalTimeMax)
	defer cancel()
	late := errors.New("the policy could not be evaluated in time")
	select {
	case p.busy <- struct{}{}:
	case <-ctx.Done():
		return decide.Answer{}, late
	}
	type result struct {
		answer decide.Answer
		err    error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-p.busy }()
		answer, err := p.eval(document)
		done <- result{answer, err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return decide.Answer{}, late
	}
}

func (p *Policy) eval(document []byte) (answer decide.Answer, err error) {
	defer func() {
		if r := recover(); r != nil {
			answer, err = decide.Answer{}, errors.New("the CUE policy failed inside")
		}
	}()
	c, _ := p.free.Get().(*compiled)
	if c == nil {
		if c, err = p.compile(); err != nil {
			return decide.Answer{}, err
		}
	}
	expr, err := cuejson.Extract("document", document)
	if err != nil {
		return decide.Answer{}, errors.New("the document is not JSON")
	}
	v := c.ctx.BuildExpr(expr)
	if err := v.Err(); err != nil {
		return decide.Answer{}, fmt.Errorf("the document is none for CUE: %s", first(err))
	}
	problem := c.value.Unify(v).Validate(cue.Final()) // final: required fields are there
	if c.uses++; c.uses < usesMax {
		p.free.Put(c) // one that has panicked is not used again
	}
	if problem == nil {
		return decide.Answer{Compliant: true}, nil
	}
	for _, e := range cueerrors.Errors(problem) {
		if len(answer.Errors) == contradict {
			break
		}
		if text := "failed to evaluate the policy with error: " + message(e); !slices.Contains(answer.Errors, text) {
			answer.Errors = append(answer.Errors, text)
		}
	}
	return answer, nil
}

// shallow refuses what is not JSON, or nested deeper than any statement: CUE would
// read expressions, and recurses.
func shallow(document []byte) error {
	if !json.Valid(document) {
		return errors.New("the document is not JSON")
	}
	depth, text, escaped := 0, false, false
	for _, c := range document {
		switch {
		case escaped:
			escaped = false
		case text:
			escaped, text = c == '\\', c != '"'
		case c == '"':
			text = true
		case c == '{', c == '[':
			if depth++; depth > depthMax {
				return fmt.Errorf("the document is nested deeper than %d levels", depthMax)
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return nil
}

// tell turns errors of CUE into problems.
func tell(file, what string, err error) (problems []decide.Problem) {
	for _, e := range cueerrors.Errors(err) {
		if len(problems) == problemsMax {
			break
		}
		problems = append(problems, decide.Problem{Path: file, Line: e.Position().Line(), Message: what + ": " + message(e)})
	}
	if len(problems) == 0 {
		problems = append(problems, decide.Problem{Path: file, Message: what})
	}
	return problems
}

func first(err error) string {
	if list := cueerrors.Errors(err); len(list) > 0 {
		return message(list[0])
	}
	return clip(err.Error())
}

// message is the error with its path, without places in files.
func message(e cueerrors.Error) string { return clip(e.Error()) }

func clip(s string) string {
	const max = 500
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
