package tuf

import sgtuf "github.com/sigstore/sigstore-go/pkg/tuf"

// The public Sigstore's repositories, for production and for tests.
const (
	PublicMirror  = "https://tuf-repo-cdn.sigstore.dev"
	StagingMirror = "https://tuf-repo-cdn.sigstage.dev"
)

// PublicRoot is the root of [PublicMirror] that this program was built with.
func PublicRoot() []byte { return sgtuf.DefaultRoot() }

// StagingRoot is that of [StagingMirror].
func StagingRoot() []byte { return sgtuf.StagingRoot() }
