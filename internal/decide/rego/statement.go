package rego

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-dev/gatehouse"
)

// statementQuery is what cosign asks of a policy about attestations.
const statementQuery = "data.signature.allow"

// StatementRules judge attestations: modules of package signature, whose rule
// allow has to be true of the whole in-toto statement. It is safe for concurrent
// use.
type StatementRules struct {
	query rego.PreparedEvalQuery
}

// LoadStatementRules compiles modules by their paths, together. They are in Rego
// v0, as cosign reads them, or in v1, all of them. They cannot reach the network.
// Errors: CodeInvalid.
func LoadStatementRules(files map[string][]byte) (rules *StatementRules, err error) {
	defer func() {
		if r := recover(); r != nil {
			rules, err = nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the policy cannot be compiled")
		}
	}()
	names := slices.Sorted(maps.Keys(files))
	for _, version := range []ast.RegoVersion{ast.RegoV0, ast.RegoV1} {
		options := []func(*rego.Rego){
			rego.Query(statementQuery), rego.SetRegoVersion(version), rego.Capabilities(capabilities()), rego.StrictBuiltinErrors(true),
		}
		for _, name := range names {
			options = append(options, rego.Module(name, string(files[name])))
		}
		q, e := rego.New(options...).PrepareForEval(context.Background())
		if e == nil {
			return &StatementRules{q}, nil
		}
		if err == nil { // in the language that most of them are written in
			err = gatehouse.Errorf(gatehouse.CodeInvalid, "the policy cannot be compiled: %w", e)
		}
	}
	return nil, err
}

// Judge returns why the statement is not allowed, nothing where it is. What the
// rules do not say is not allowed.
func (r *StatementRules) Judge(ctx context.Context, statement []byte) (why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, evalTimeMax)
	defer cancel()
	var input any
	d := json.NewDecoder(bytes.NewReader(statement))
	d.UseNumber()
	if err := d.Decode(&input); err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the statement is not JSON: %w", err)
	}
	results, err := r.query.Eval(ctx, rego.EvalInput(input))
	if err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the policy cannot be evaluated: %w", err)
	}
	if results.Allowed() {
		return "", nil
	}
	for _, res := range results {
		for _, x := range res.Expressions {
			return fmt.Sprintf("%s is %v", statementQuery, x.Value), nil
		}
	}
	return statementQuery + " is undefined", nil
}
