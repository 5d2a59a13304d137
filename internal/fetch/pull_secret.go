package fetch

import (
	"bytes"
	"encoding/json"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/gatehouse-dev/gatehouse"
)

// Entries of Secrets with logins, and the bound of one.
const (
	secretConfig    = ".dockerconfigjson" // of type kubernetes.io/dockerconfigjson
	secretLegacy    = ".dockercfg"        // of type kubernetes.io/dockercfg: the logins alone
	pullSecretBytes = 1 << 20
)

// PullSecret reads the logins of a Secret as Kubernetes keeps them for pulling images.
// Credential helpers that it names are not run. Errors: CodeInvalid.
func PullSecret(data map[string][]byte) (Credentials, error) {
	b := data[secretConfig]
	if old := data[secretLegacy]; len(b) == 0 && len(old) > 0 {
		if !json.Valid(old) {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "its entry %s is not JSON", secretLegacy)
		}
		b = append(append([]byte(`{"auths":`), old...), '}')
	}
	switch {
	case len(b) == 0:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "it has no entry %s", secretConfig).
			WithHint("kubectl create secret docker-registry writes it")
	case len(b) > pullSecretBytes:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "it has more than %d bytes", pullSecretBytes)
	}
	file, err := config.LoadFromReader(bytes.NewReader(b))
	if err != nil { // the library's message can quote what it read
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "its entry %s holds no logins", secretConfig)
	}
	file.CredentialsStore, file.CredentialHelpers = "", nil
	return &secretLogins{file: file}, nil
}

// secretLogins are the logins of one Secret.
type secretLogins struct {
	mu   sync.Mutex
	file *configfile.ConfigFile
}

// Resolve implements authn.Keychain.
func (s *secretLogins) Resolve(target authn.Resource) (authn.Authenticator, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := lookUp(s.file, target)
	if err != nil || found == (types.AuthConfig{}) {
		return authn.Anonymous, err
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: found.Username, Password: found.Password, Auth: found.Auth,
		IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
	}), nil
}
