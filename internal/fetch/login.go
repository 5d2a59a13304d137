package fetch

import (
	"github.com/google/go-containerregistry/pkg/authn"
)

// Login returns the name and password that c knows for host, for servers that
// are no registries. Both are empty where c knows none, or only a token.
func Login(c Credentials, host string) (user, password string) {
	a, err := c.Resolve(resource(host))
	if err != nil {
		return "", ""
	}
	cfg, err := a.Authorization()
	if err != nil {
		return "", ""
	}
	return cfg.Username, cfg.Password
}

type resource string

var _ authn.Resource = resource("")

func (r resource) String() string      { return string(r) }
func (r resource) RegistryStr() string { return string(r) }
