//go:build tools

// Package tools pins the stock cosign 2 that the interoperation tests run. It is
// a module of its own, so that cosign's dependencies stay out of the product:
//
//	cd test/tools/cosign2
//	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o cosign2 github.com/sigstore/cosign/v2/cmd/cosign
package tools

import _ "github.com/sigstore/cosign/v2/cmd/cosign"
