package verify

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
)

// notary checks a signature of the Notary Project.
func (r *run) notary(_ context.Context, c candidate, _ []byte, _ []gatehouse.Descriptor) {
	switch {
	case r.need.Kind.MediaTypes() != nil:
		return // no document
	case r.auth.Notary == nil:
		c.reject(CodeOtherFormat, "a signature of the Notary Project; authority %s accepts %s signatures only", r.auth.name, r.auth.accepts())
	default:
		c.reject(CodeUnsupported, "Notation signatures are not verified yet")
	}
}

// accepts names the forms of signatures that count.
func (p *authority) accepts() string {
	switch {
	case p.Notary != nil:
		return "Notary Project"
	case p.Format != "":
		return p.Format
	}
	return "Sigstore"
}
