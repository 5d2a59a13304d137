package version

import (
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/google/osv-scalibr/semantic"
)

// tail returns osv-scalibr's order of an ecosystem that we have no own one for.
func tail(ecosystem string) Order {
	return Order{name: ecosystem, compare: func(a, b string) (int, error) { return compareTail(ecosystem, a, b) }}
}

// compareTail fences in code that we do not own: what it panics with becomes an
// error of the one comparison.
func compareTail(ecosystem, a, b string) (c int, err error) {
	defer func() {
		if p := recover(); p != nil {
			c, err = 0, gatehouse.Errorf(gatehouse.CodeInvalid, "versions %q and %q cannot be compared: %v", clip(a), clip(b), p)
		}
	}()
	va, err := semantic.Parse(a, ecosystem)
	if err != nil {
		return 0, tailError(a, err)
	}
	// An error of b alone would come out of CompareStr as well, but some
	// parsers only complain when they are asked to parse.
	vb, err := semantic.Parse(b, ecosystem)
	if err != nil {
		return 0, tailError(b, err)
	}
	c, err = va.Compare(vb)
	if err != nil {
		return 0, tailError(a, fmt.Errorf("against %q: %w", clip(b), err))
	}
	return sign(c), nil
}

func tailError(v string, err error) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "version %q is invalid: %w", clip(v), err)
}
