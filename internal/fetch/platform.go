package fetch

import (
	"encoding/json"
	"runtime"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Platform is an operating system and a processor, as in an image index (OCI
// image-spec image-index.md). The zero Platform means "this machine's", with
// Linux as its system.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// ParsePlatform reads OS/ARCH or OS/ARCH/VARIANT. Errors: CodeInvalid.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || strings.Contains("/"+s+"/", "//") {
		return Platform{}, gatehouse.Errorf(gatehouse.CodeInvalid, "platform %q is not of the form OS/ARCH", s).
			WithHint("for example linux/amd64 or linux/arm/v7")
	}
	p := Platform{OS: strings.ToLower(parts[0]), Architecture: strings.ToLower(parts[1])}
	if len(parts) == 3 {
		p.Variant = strings.ToLower(parts[2])
	}
	return p.normal(), nil
}

// hostPlatform is what containers on this machine run as.
func hostPlatform() Platform { return Platform{OS: "linux", Architecture: runtime.GOARCH}.normal() }

func (p Platform) String() string {
	if p.OS == "" && p.Architecture == "" {
		return "unknown"
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// normal maps the names that uname(1) uses to Go's, and drops the variant that
// goes without saying.
func (p Platform) normal() Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386", "i686":
		p.Architecture = "386"
	}
	if p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1" {
		p.Variant = ""
	}
	return p
}

// fits reports whether an image for have serves somebody who asked for p. A
// variant that was not asked for does not matter.
func (p Platform) fits(have Platform) bool {
	have = have.normal()
	return p.OS == have.OS && p.Architecture == have.Architecture && (p.Variant == "" || p.Variant == have.Variant)
}

// platformOf reads the platform of an index entry; ok is false where there is
// none or it says "unknown", as BuildKit's attestations do.
func platformOf(raw json.RawMessage) (Platform, bool) {
	var p Platform
	if len(raw) == 0 || json.Unmarshal(raw, &p) != nil || p.OS == "" || p.OS == "unknown" {
		return Platform{}, false
	}
	return p.normal(), true
}
