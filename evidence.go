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
	NeedPlatforms                   // the image configurations of all that an index lists, by platform
	NeedDigest                      // the digest alone
	NeedBuilds                      // its layers, and which images they are those of
)

// Need is one fact that a policy must have of one image before it can judge.
type Need struct {
	Name  string   // unique in a policy set: "policy/authority"
	Image int      // index into Request.Images
	Kind  NeedKind // what
	// Authority says whose word counts, for signatures and attestations.
	Authority Authority
	Predicate string // predicate type URI, for attestations
	// Namespace is that of what is judged; empty: it has none.
	Namespace string
	// Wait: an image that is being scanned is waited for, as far as there is time.
	Wait bool
	// Through is an index that lists the image and that the image was reached
	// by. Signatures of it and attestations about it cover all that it lists and
	// count for the image; VEX documents and SBOMs do not.
	Through Digest
}

// Authority is one signer that somebody trusts. Exactly one of its kinds of
// trust (Keys, Keyless, Notary) is set; an Authority that trusts nobody verifies
// nothing.
type Authority struct {
	Name string
	// Keys are public keys in PEM, PKIX ("PUBLIC KEY"); any one of them is enough.
	Keys []string
	// Hash is the digest algorithm of key signatures: "sha224", "sha256" (default),
	// "sha384", "sha512".
	Hash string
	// Keyless are the holders of short-lived certificates that count.
	Keyless *Keyless
	// Notary are the signers of Notary Project signatures that count.
	Notary *Notary
	// Trust is what logs, certificate authorities and timestamp authorities count,
	// a Sigstore trusted root (media type application/vnd.dev.sigstore.trustedroot+json;
	// version 0.1 or 0.2). Keyless needs one; keys need one where RequireLog or
	// RequireTimestamp is set.
	Trust []byte
	// Annotations that the signature must carry, all of them.
	Annotations map[string]string
	// RequireLog asks for a transparency log entry beside the key's signature.
	RequireLog bool
	// RequireTimestamp asks for a signed RFC 3161 timestamp of an authority in
	// Trust.
	RequireTimestamp bool
	// Format is the only form that counts: "legacy" or "bundle". Empty: any.
	Format string
	// AnyAttestation lets every attestation about the image pass for a
	// signature, as cosign does. Who may attest then may sign.
	AnyAttestation bool
	// Sources are where signatures lie. Empty: beside the image.
	Sources []SignatureSource
}

// SignatureSource is a repository that signatures are kept in.
type SignatureSource struct {
	Registry  string
	Repo      Repo
	TagPrefix string // of the tag scheme: PREFIXsha256-….sig
	// Secrets are Secrets of the namespace of what is judged, with the logins for the
	// registry.
	Secrets []string
}

// Keyless says whose certificates count: one of Identities, issued by a
// certificate authority of [Authority.Trust].
type Keyless struct {
	Identities []IdentityRule
	// IgnoreSCT does not ask whether the certificate was logged, IgnoreLog not
	// whether the signature was. Without a log entry its time has to be proven by a
	// signed timestamp.
	IgnoreSCT, IgnoreLog bool
}

// IdentityRule matches certificates. What is empty matches everything, but one
// of Issuer and IssuerRegExp and one of Subject and SubjectRegExp have to be set.
// Regular expressions (RE2) match the whole value.
type IdentityRule struct {
	Issuer, IssuerRegExp   string
	Subject, SubjectRegExp string
	// Workflow has to be equal where it is not empty.
	Workflow Workflow
}

// Notary is a trust policy of the Notary Project: certificates that signing
// certificates have to lead to, and who may hold them.
type Notary struct {
	CAs  []string // PEM certificates of the trust store "ca"
	TSAs []string // PEM certificates of the trust store "tsa"
	// Identities are distinguished names, "x509.subject: C=US, O=…", or "*".
	Identities []string
	// Level is strict (default), permissive or audit.
	Level string
}

// Workflow is what a certificate tells of the CI run that it was made for: GitHub's
// and the generic extensions of Fulcio (OID 1.3.6.1.4.1.57264.1.2 to .22).
type Workflow struct {
	Trigger    string `json:"trigger,omitempty"`    // .1.20, or .1.2
	SHA        string `json:"sha,omitempty"`        // .1.13, or .1.3
	Name       string `json:"name,omitempty"`       // .1.4
	Repository string `json:"repository,omitempty"` // .1.5: OWNER/NAME
	Ref        string `json:"ref,omitempty"`        // .1.14, or .1.6
	// BuildSigner is the URI of the workflow that built (.1.9), SourceRepository
	// that of the repository (.1.12), RunInvocation that of the run (.1.21).
	BuildSigner      string `json:"buildSigner,omitempty"`
	SourceRepository string `json:"sourceRepository,omitempty"`
	RunInvocation    string `json:"runInvocation,omitempty"`
	Runner           string `json:"runner,omitempty"` // .1.11: github-hosted, self-hosted
}

// Identity is who signed.
type Identity struct {
	// Key is the sha256 of the signer's public key (DER SubjectPublicKeyInfo).
	Key Digest `json:"key,omitempty"`
	// Issuer and Subject come from a certificate; empty for plain keys.
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	// Workflow is what the certificate tells of a CI run; zero for others.
	Workflow Workflow `json:"workflow,omitzero"`
}

// LogEntry is where a transparency log shows a signature.
type LogEntry struct {
	Log   string    `json:"log"` // base64 of the log's id
	Index int64     `json:"index"`
	At    time.Time `json:"at,omitzero"` // as a log of Rekor v1 promises; zero for v2
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
	// ExpiresAt is when the signature says that it ends; zero = never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	// Log is the entry that was checked; nil where none was asked for.
	Log *LogEntry `json:"log,omitempty"`
	// Through is the index that was signed instead, where Subject is one of the
	// images that it lists.
	Through Digest `json:"through,omitempty"`
	Payload []byte `json:"-"` // verified bytes
	// Mark tells signatures of one image apart: what carried it, wherever that lay.
	// Manifests that a signature tag pointed to after each other carry the same ones.
	Mark Digest `json:"-"`
}

// Rejected is a candidate that did not become Evidence, and why.
type Rejected struct {
	Need     string `json:"need,omitempty"`
	Artifact Digest `json:"artifact"`
	Format   string `json:"format"`
	Code     string `json:"code"` // stable: "wrong-key", "other-digest", "malformed", "not-a-signature" …
	Message  string `json:"message"`
	Mark     Digest `json:"-"` // as in [Evidence]; empty: not of one signature
}
