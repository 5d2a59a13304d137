//go:build tools

// Package sarif pins the module that carries the schema of SARIF 2.1.0.
package sarif

import _ "github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
