package expr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
	"k8s.io/apiserver/pkg/cel/lazy"
)

// ErrBudget: the expressions of a scope cost more than they may.
var ErrBudget = errors.New("the expressions cost more than one evaluation may")

// Scope is the values of one evaluation, and what it may cost. It is used by one
// goroutine.
type Scope struct {
	values    map[string]any
	budget    int64
	err       error // that ends everything: no budget is left, or no time
	variables *lazy.MapValue
}

// Scope begins an evaluation with values that [Value] made, by name. A value that is
// an error is one that is not known: asking for it fails.
func (e *Env) Scope(ctx context.Context, values map[string]any) *Scope {
	s := &Scope{values: map[string]any{}, budget: e.budget}
	for name, v := range values {
		if err, ok := v.(error); ok {
			v = types.WrapErr(err)
		}
		s.values[name] = v
	}
	s.variables = lazy.NewMapValue(e.variables)
	for _, v := range e.programs {
		s.variables.Append(v.name, func(*lazy.MapValue) ref.Val {
			out, err := s.eval(ctx, v.program)
			if err != nil {
				return types.WrapErr(fmt.Errorf("variable %s: %w", v.name, err))
			}
			return out
		})
	}
	s.values[Variables] = s.variables
	return s
}

// ResolveName finds a value for the interpreter.
func (s *Scope) ResolveName(name string) (any, bool) {
	v, ok := s.values[name]
	return v, ok
}

// Parent is nil: no scope lies around this one.
func (s *Scope) Parent() interpreter.Activation { return nil }

// Bool evaluates a program that was compiled to yield true or false.
func (s *Scope) Bool(ctx context.Context, p *Program) (bool, error) {
	v, err := s.eval(ctx, p.program)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the expression yields %s, not true or false", v.Type().TypeName())
	}
	return bool(b), nil
}

// Text evaluates a program that was compiled to yield a text.
func (s *Scope) Text(ctx context.Context, p *Program) (string, error) {
	v, err := s.eval(ctx, p.program)
	if err != nil {
		return "", err
	}
	t, ok := v.(types.String)
	if !ok {
		return "", fmt.Errorf("the expression yields %s, not a text", v.Type().TypeName())
	}
	return string(t), nil
}

func (s *Scope) eval(ctx context.Context, p cel.Program) (v ref.Val, err error) {
	defer recovered(&err)
	if s.err != nil {
		return nil, s.err
	}
	v, details, err := p.ContextEval(ctx, s)
	if s.err != nil { // of a variable on the way
		return nil, s.err
	}
	if ctx.Err() != nil {
		s.err = ctx.Err()
		return nil, s.err
	}
	if details == nil || details.ActualCost() == nil {
		if err == nil {
			err = ErrBudget
		}
		return nil, err
	}
	// CEL's own limit of one expression counts as all of it.
	if s.budget -= int64(min(*details.ActualCost(), 2*BudgetMax)); s.budget < 0 {
		s.err = ErrBudget
		return nil, s.err
	}
	if err != nil {
		return nil, err
	}
	if e, ok := v.(*types.Err); ok {
		return nil, e
	}
	return v, nil
}

// Value makes of what JSON has (with numbers as json.Number) what expressions see:
// whole numbers become int, others double. What it is given stays as it is.
func Value(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if v == nil {
			return nil
		}
		out := make(map[string]any, len(v))
		for key, item := range v {
			out[key] = Value(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = Value(item)
		}
		return out
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return fmt.Errorf("the number %s is too large", v)
		}
		return f
	}
	return v
}
