package decide

import (
	"context"
	"time"
)

// Compliance is a policy about one JSON document, such as an in-toto statement,
// in one of the languages that ClusterImagePolicies have for it. It is pure and
// safe for concurrent use.
type Compliance interface {
	// Eval judges a document. ctx bounds the time; now is the time that the policy
	// may ask for. An error is one of the policy or of the document, and means no.
	Eval(ctx context.Context, document []byte, now time.Time) (Answer, error)
}

// Answer is what a Compliance says. Its zero value is no.
type Answer struct {
	Compliant        bool
	Errors, Warnings []string
}
