package gatehouse

import "time"

// NeedKind is what sort of fact a policy asks for.
type NeedKind int

const (
	NeedNothing     NeedKind = iota // the zero value asks for nothing and satisfies nothing
	NeedSignature                   // a signature over the image's digest
	NeedAttestation                 // a signed statement of type Predicate about it
	NeedFindings                    // inventory and findings
	NeedConfig                      // the image configuration
	NeedVEX                         // what a signed VEX document says about its vulnerabilities
	NeedSBOM                        // packages that a signed SBOM of it names, with their findings
)

// Need is one fact that a policy must have of one image before it can judge.
type Need struct {
	Name  string   // unique in a policy set: "policy/authority"
	Image int      // index into Request.Images
	Kind  NeedKind // what
	// Authority says whose word counts, for signatures and attestations.
	Authority Authority
	Predicate string // predicate type URI, for attestations
}

// Authority is one signer that somebody trusts. Exactly one of its kinds of
// trust is set; an Authority that trusts nobody verifies nothing.
type Authority struct {
	Name string
	// Keys are public keys in PEM, PKIX ("PUBLIC KEY"); any one of them is enough.
	Keys []string
	// Hash is the digest algorithm of key signatures: "sha256" (default),
	// "sha384", "sha512".
	Hash string
	// Annotations that the signature must carry, all of them.
	Annotations map[string]string
	// RequireLog asks for a transparency log entry beside the key's signature.
	RequireLog bool
}

// Identity is who signed.
type Identity struct {
	// Key is the sha256 of the signer's public key (DER SubjectPublicKeyInfo).
	Key Digest `json:"key,omitempty"`
	// Issuer and Subject come from a Fulcio certificate; empty for plain keys.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
}

// Evidence exists only after its cryptographic check has passed.
type Evidence struct {
	Need      string    `json:"need,omitempty"` // Need.Name that it satisfies
	Subject   Digest    `json:"subject"`        // what was signed
	Artifact  Digest    `json:"artifact"`       // the manifest that carried the signature
	Format    string    `json:"format"`         // "cosign-legacy", "sigstore-bundle-v0.3"
	Predicate string    `json:"predicate"`      // predicate type; the simple-signing type for legacy
	Identity  Identity  `json:"identity"`
	SignedAt  time.Time `json:"signedAt,omitzero"` // by a trusted clock; zero = none
	Payload   []byte    `json:"-"`                 // verified bytes
}

// Rejected is a candidate that did not become Evidence, and why.
type Rejected struct {
	Need     string `json:"need,omitempty"`
	Artifact Digest `json:"artifact"`
	Format   string `json:"format"`
	Code     string `json:"code"` // stable: "wrong-key", "other-digest", "malformed", "not-a-signature" …
	Message  string `json:"message"`
}
