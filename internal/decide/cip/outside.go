package cip

import (
	"slices"
	"strings"
)

// Outside is what policies refer to and do not hold themselves. Its zero value has
// nothing, and a policy that needs something of it is refused. The functions answer
// in bounded time, are safe for concurrent use, and their errors are for whoever
// wrote the policy.
type Outside struct {
	// Key returns the public keys, in PEM, that key.kms names.
	Key func(uri string) (string, error)
	// Secret and ConfigMap return the data of an object of the cluster. namespace is
	// never empty where Namespace is set. CodeNotFound: there is none.
	Secret    func(namespace, name string) (map[string][]byte, error)
	ConfigMap func(namespace, name string) (map[string]string, error)
	// Namespace is where they lie that policies name: Gatehouse's own. Empty: not
	// known, and the policies may name any.
	Namespace string
	// PullSecrets: Secrets of the namespace of whatever is judged can be read for
	// source[].signaturePullSecrets.
	PullSecrets bool
	// Remote returns the document at an https address whose sha256, in lower-case
	// hexadecimal, is sum. It has compared them.
	Remote func(url, sum string) ([]byte, error)
	// Repository returns the trusted root that a TUF repository holds.
	Repository func(TUF) ([]byte, error)
	// Trust is the trusted root that counts where a policy names none: that of the
	// server's own Sigstore. Nil: there is none.
	Trust []byte
	// Roots are the trusted roots of TrustRoot documents by their names; nil for
	// one that cannot be read.
	Roots map[string][]byte
}

// TUF is a repository of The Update Framework that a TrustRoot names.
type TUF struct {
	Root    []byte // the first root.json, which is trusted
	Mirror  string // address of the repository; empty: it is in Archive
	Archive []byte // the repository as tar, gzipped
	Targets string // folder of the targets
	Target  string // name of the trusted root among them
}

// root finds a trusted root by the name of its TrustRoot, or the one that counts
// without a name. at is the field to complain about. nil: told already.
func (p *parser) root(at, name string) []byte {
	if name != "" {
		root, known := p.outside.Roots[name]
		if known && root == nil {
			p.absent(at, "trustRootRef: the TrustRoot "+clip(name)+" cannot be read", "repair the TrustRoot, or what it refers to")
		}
		if known {
			return root
		}
		hint := "add a TrustRoot of this name to the policies"
		if names := p.rootNames(); len(names) > 0 {
			hint += "; there are " + strings.Join(names, ", ")
		}
		p.absent(at, "trustRootRef: there is no TrustRoot "+clip(name), hint)
		return nil
	}
	if len(p.outside.Trust) == 0 {
		p.problem(at, "nothing says which certificates and logs are trusted: the policy names no trustRootRef, and there is no Sigstore of our own to fall back to",
			"add trustRootRef with the name of a TrustRoot document, or turn the server's own Sigstore on (sigstore: true; offline, --trusted-root names its trusted root)")
	}
	return p.outside.Trust
}

func (p *parser) rootNames() []string {
	var names []string
	for name := range p.outside.Roots {
		names = append(names, name)
	}
	slices.Sort(names)
	return names[:min(len(names), 10)]
}
