package unpack

import (
	"errors"
	"iter"

	"github.com/gatehouse-dev/gatehouse"
)

// Named puts the name of their file before the errors of records.
func Named(name string, records iter.Seq2[gatehouse.Advisory, error]) iter.Seq2[gatehouse.Advisory, error] {
	return func(yield func(gatehouse.Advisory, error) bool) {
		for a, err := range records {
			if err != nil {
				err = Within(name, err)
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

// Within puts the name of a file before an error that has a code. A context's
// end is no file's fault.
func Within(name string, err error) error {
	var e *gatehouse.Error
	if !errors.As(err, &e) {
		return err
	}
	return gatehouse.Errorf(e.Code, "%s: %w", name, err).WithHint("%s", gatehouse.HintOf(err))
}
