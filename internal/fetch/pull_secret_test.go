package fetch_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// TestPullSecret reads both types of Secrets that Kubernetes has for logins, finds
// the login of a registry, and never tells what is in one that is broken.
func TestPullSecret(t *testing.T) {
	const login = `{"registry.example":{"auth":"dXNlcjpwYXNz"},"https://index.docker.io/v1/":{"username":"hub","password":"p"}}`
	for name, data := range map[string]map[string][]byte{
		"dockerconfigjson": {".dockerconfigjson": []byte(`{"auths":` + login + `,"credsStore":"desktop","credHelpers":{"registry.example":"ecr-login"}}`)},
		"dockercfg":        {".dockercfg": []byte(login)},
	} {
		c, err := fetch.PullSecret(data)
		if err != nil {
			t.Fatal(name, err)
		}
		for host, want := range map[string]string{"registry.example": "user pass", "index.docker.io": "hub p", "other.example": " "} {
			if user, password := fetch.Login(c, host); user+" "+password != want {
				t.Errorf("%s: %s: %q", name, host, user+" "+password)
			}
		}
	}
	for name, data := range map[string]map[string][]byte{
		"nothing":    nil,
		"other data": {"cosign.pub": []byte("x")},
		"no JSON":    {".dockerconfigjson": []byte("topsecret")},
		"old, none":  {".dockercfg": []byte("topsecret")},
		"too large":  {".dockerconfigjson": []byte(`{"auths":{}}` + strings.Repeat(" ", 1<<20))},
		"auth":       {".dockerconfigjson": []byte(`{"auths":{"a":{"auth":"topsecret!"}}}`)},
	} {
		if _, err := fetch.PullSecret(data); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzPullSecret(f *testing.F) {
	f.Add([]byte(`{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`), false)
	f.Add([]byte(`{"registry.example":{"username":"a","password":"b"}}`), true)
	f.Fuzz(func(t *testing.T, b []byte, legacy bool) {
		entry := ".dockerconfigjson"
		if legacy {
			entry = ".dockercfg"
		}
		if c, err := fetch.PullSecret(map[string][]byte{entry: b}); err == nil {
			fetch.Login(c, "registry.example")
		}
	})
}
