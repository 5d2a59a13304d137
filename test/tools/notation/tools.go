//go:build tools

// Package tools pins the stock notation that the interoperation tests run. It is
// a module of its own, so that notation's dependencies stay out of the product:
//
//	cd test/tools/notation
//	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o notation github.com/notaryproject/notation/cmd/notation
package tools

import _ "github.com/notaryproject/notation/cmd/notation"
