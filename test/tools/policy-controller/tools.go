//go:build tools

// Package tools pins policy-controller, which the benchmarks run beside the webhook.
package tools

import _ "github.com/sigstore/policy-controller/cmd/webhook"
