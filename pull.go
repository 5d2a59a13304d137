package gatehouse

import "fmt"

// PullMode says what becomes of a pull of an image that the policies do not allow.
// An unknown mode is one that enforces.
type PullMode int

const (
	PullOff     PullMode = iota // nobody asks
	PullWarn                    // it is served, with a warning
	PullEnforce                 // it is denied
)

func (m PullMode) String() string {
	switch m {
	case PullOff:
		return "off"
	case PullWarn:
		return "warn"
	}
	return "enforce"
}

// ParsePullMode reads a mode. Errors: CodeInvalid.
func ParsePullMode(s string) (PullMode, error) {
	for _, m := range []PullMode{PullOff, PullWarn, PullEnforce} {
		if s == m.String() {
			return m, nil
		}
	}
	return PullEnforce, Errorf(CodeInvalid, "pull policy %q is unknown", clip(s)).WithHint("use enforce, warn or off")
}

// MarshalJSON writes the name.
func (m PullMode) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", m.String()), nil }
