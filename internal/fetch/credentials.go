package fetch

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/gatehouse-dev/gatehouse"
)

// Credentials answer who we are at a registry.
type Credentials = authn.Keychain

// Password is one name and password for one registry (host[:port]); others get
// none.
func Password(host, user, password string) Credentials {
	return password1{host: host, auth: &authn.Basic{Username: user, Password: password}}
}

type password1 struct {
	host string
	auth authn.Authenticator
}

func (p password1) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if r.RegistryStr() == p.host || p.host == "docker.io" && r.RegistryStr() == name.DefaultRegistry {
		return p.auth, nil
	}
	return authn.Anonymous, nil
}

// Token is a bearer token for one registry (host[:port]); others get none.
func Token(host, token string) Credentials {
	return password1{host: host, auth: &authn.Bearer{Token: token}}
}

// FirstOf asks each in turn until one knows the registry.
func FirstOf(all ...Credentials) Credentials { return authn.NewMultiKeychain(all...) }

// LoginFiles reads the files that docker login, podman login and their
// credential helpers keep, in this order: $DOCKER_CONFIG or ~/.docker,
// $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json,
// $XDG_CONFIG_HOME/containers/auth.json. All of them count: the first that
// knows the registry answers. Helpers are programs, so this is for commands,
// not for servers. getenv is os.Getenv in a program.
func LoginFiles(getenv func(string) string) Credentials {
	home := getenv("HOME")
	var paths []string
	add := func(dir string, parts ...string) {
		if dir != "" {
			paths = append(paths, filepath.Join(append([]string{dir}, parts...)...))
		}
	}
	if dir := getenv("DOCKER_CONFIG"); dir != "" {
		add(dir, "config.json")
	} else {
		add(home, ".docker", "config.json")
	}
	add(getenv("REGISTRY_AUTH_FILE"))
	add(getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if dir := getenv("XDG_CONFIG_HOME"); dir != "" {
		add(dir, "containers", "auth.json")
	} else {
		add(home, ".config", "containers", "auth.json")
	}
	return &loginFiles{paths: paths}
}

// LoginFile reads one such file, each time that a login is asked for, so that one
// that is mounted may be exchanged. Credential helpers that it names are not run:
// it is for servers. A file that is gone or broken fails whoever asks.
// Errors: CodeInvalid if it cannot be read now.
func LoginFile(path string) (Credentials, error) {
	if _, err := load(path); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the logins: %w", err)
	}
	return &loginFiles{paths: []string{path}, bare: true}, nil
}

type loginFiles struct {
	paths []string
	bare  bool       // the files must be there, and their helpers are not run
	mu    sync.Mutex // credential helpers are not meant to run side by side
}

func (l *loginFiles) Resolve(target authn.Resource) (authn.Authenticator, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, path := range l.paths {
		file, err := load(path)
		if errors.Is(err, fs.ErrNotExist) && !l.bare {
			continue
		}
		if err != nil {
			return nil, err
		}
		if l.bare {
			file.CredentialsStore, file.CredentialHelpers = "", nil
		}
		found, err := lookUp(file, target)
		if err != nil {
			return nil, err
		}
		if found != (types.AuthConfig{}) {
			return authn.FromConfig(authn.AuthConfig{
				Username: found.Username, Password: found.Password, Auth: found.Auth,
				IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
			}), nil
		}
	}
	return authn.Anonymous, nil
}

// loginFileMax bounds a login file, in bytes.
const loginFileMax = 4 << 20

func load(path string) (*configfile.ConfigFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file, err := config.LoadFromReader(io.LimitReader(f, loginFileMax))
	if err != nil {
		// The library's message can quote the file, secrets included.
		return nil, errors.New(path + " is not a login file")
	}
	return file, nil
}

// lookUp finds the login for target in one file: an exact entry, then a helper,
// then an entry that old Dockers wrote as a URL. The zero value is "none".
func lookUp(file *configfile.ConfigFile, target authn.Resource) (types.AuthConfig, error) {
	host := target.RegistryStr()
	hostKeys := []string{host}
	if host == name.DefaultRegistry {
		hostKeys = []string{authn.DefaultAuthKey, "docker.io", host}
	}
	for _, key := range append(prefixes(target.String()), hostKeys...) {
		if found := bare(file.AuthConfigs[key]); found != (types.AuthConfig{}) {
			return found, nil
		}
	}
	for _, key := range hostKeys {
		if file.CredentialsStore == "" && file.CredentialHelpers[key] == "" {
			continue
		}
		found, err := file.GetAuthConfig(key)
		if err != nil || bare(found) != (types.AuthConfig{}) {
			return bare(found), err
		}
	}
	for key, found := range file.AuthConfigs {
		if u, ok := strings.CutPrefix(key, "https://"); ok && strings.Split(u, "/")[0] == host && bare(found) != (types.AuthConfig{}) {
			return bare(found), nil
		}
	}
	return types.AuthConfig{}, nil
}

// bare drops what is always set and says nothing.
func bare(c types.AuthConfig) types.AuthConfig {
	c.ServerAddress = ""
	return c
}

// prefixes lists the repository and what stands above it, longest first: podman
// keeps logins for a repository or a group of them too.
func prefixes(repo string) []string {
	var keys []string
	for i := len(repo); i > 0; i = strings.LastIndex(repo[:i], "/") {
		keys = append(keys, repo[:i])
	}
	return keys
}
