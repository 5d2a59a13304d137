package rego

import "github.com/open-policy-agent/opa/v1/ast"

// Capabilities are what of the language every policy of the house may use: OPA's
// without what reaches out of the module or answers differently the next time.
func Capabilities() *ast.Capabilities { return capabilities() }

// Removed says why a builtin is not there; "" for one that is, or never was.
func Removed(builtin string) string { return removed[builtin] }
