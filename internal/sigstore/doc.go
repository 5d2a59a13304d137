// Package sigstore is the HTTP edge of a private Sigstore: what stock clients ask
// of a certificate authority (Fulcio v2), a transparency log (Rekor v2), a
// timestamp authority and a TUF repository. It parses, checks and answers in
// their protocols, and reaches what it serves through small interfaces.
package sigstore
