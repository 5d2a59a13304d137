package main

import (
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/admit/node"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
)

const (
	// nodeConfigFile is where the commands of nodes look for their settings:
	// containerd and the kubelet tell them nothing of their own.
	nodeConfigFile = "/etc/gatehouse/node.yaml"
	nodeConfigEnv  = config.EnvPrefix + "NODE_CONFIG"
	nodeFileMax    = 1 << 20 // bytes of any file that it names
)

// nodeConfig is the file. docs/doors.md explains it.
type nodeConfig struct {
	Server  string      `json:"server"`  // URL of --admission-listen
	CA      string      `json:"ca"`      // PEM file; empty: the system's authorities
	Timeout string      `json:"timeout"` // for one question
	Always  nodeAlways  `json:"always"`
	Logins  []nodeLogin `json:"logins"`
	Cache   string      `json:"cache"` // how long the kubelet may keep a login for an image
}

type nodeAlways struct {
	Digests    []string `json:"digests"`
	Namespaces []string `json:"namespaces"`
}

type nodeLogin struct {
	Registry     string `json:"registry"`
	Username     string `json:"username"`
	PasswordFile string `json:"passwordFile"`
	Token        bool   `json:"token"` // present the Pod's own token
}

// nodeConfigPath is where the file is, as far as a flag does not say.
func (a *app) nodeConfigPath(flag string) string {
	if flag != "" {
		return flag
	}
	if path := a.getenv(nodeConfigEnv); path != "" {
		return path
	}
	return nodeConfigFile
}

// nodeConfig reads the file. Errors: CodeNotFound, CodeInvalid.
func (a *app) nodeConfig(path string) (c nodeConfig, err error) {
	data, err := readNodeFile(path)
	if err != nil {
		return c, gatehouse.Errorf(gatehouse.CodeNotFound, "couldn't read the node's configuration: %w", err).
			WithHint("write %s, name another with --node-config or %s; docs/doors.md shows one", nodeConfigFile, nodeConfigEnv)
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return c, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %s", path, strings.TrimPrefix(err.Error(), "error unmarshaling JSON: "))
	}
	return c, nil
}

func readNodeFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > nodeFileMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", path, nodeFileMax)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// asker makes what asks the server. What cannot be made of the configuration is an
// error, and the asker that comes with it lets through what the list names, and the
// sandbox of Pods, which no machine does without.
func (c nodeConfig) asker(a *app) (*node.Asker, error) {
	ask := &node.Asker{Always: admit.Always{Digests: admit.PauseDigests(), Namespaces: c.Always.Namespaces}}
	for _, s := range c.Always.Digests {
		d, err := gatehouse.ParseDigest(s)
		if err != nil {
			return ask, gatehouse.Errorf(gatehouse.CodeInvalid, "always.digests: %w", err)
		}
		ask.Always.Digests = append(ask.Always.Digests, d)
	}
	timeout, err := optionalDuration("timeout", c.Timeout)
	if err != nil {
		return ask, err
	}
	ask.Timeout = timeout
	u, err := url.Parse(c.Server)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && config.Loopback(u.Host)) {
		return ask, gatehouse.Errorf(gatehouse.CodeInvalid, "server %q is not the https:// URL of the admission listener", c.Server)
	}
	settings := egress.Config{UserTyped: true, Proxies: egress.ProxiesFrom(a.getenv), UserAgent: "gatehouse/" + a.version()}
	if c.CA != "" {
		pem, err := readNodeFile(c.CA)
		if err != nil {
			return ask, gatehouse.Errorf(gatehouse.CodeNotFound, "ca: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return ask, gatehouse.Errorf(gatehouse.CodeInvalid, "ca: %s holds no certificate", c.CA)
		}
	}
	ask.Server, ask.Client = u, egress.New(settings).Client()
	return ask, nil
}

func optionalDuration(key, s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: %q is no duration", key, s).WithHint("for example 8s")
	}
	return d, nil
}

// provider makes what answers the kubelet. Errors: CodeInvalid, CodeNotFound.
func (c nodeConfig) provider(a *app) (*node.Provider, error) {
	ask, err := c.asker(a)
	if err != nil {
		return nil, err
	}
	p := &node.Provider{Asker: ask}
	if p.Cache, err = optionalDuration("cache", c.Cache); err != nil {
		return nil, err
	}
	for i, l := range c.Logins {
		switch {
		case l.Registry == "" || l.Username == "":
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "logins[%d]: registry or username is missing", i)
		case l.Token == (l.PasswordFile != ""):
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "logins[%d]: one of passwordFile and token is needed, and not both", i)
		}
		login := node.Login{Registry: l.Registry, Auth: node.Auth{Username: l.Username}, Token: l.Token}
		if !l.Token {
			secret, err := readNodeFile(l.PasswordFile)
			if err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "logins[%d]: %w", i, err)
			}
			login.Password = strings.TrimRight(string(secret), "\r\n")
		}
		p.Logins = append(p.Logins, login)
	}
	return p, nil
}

// invoked is the command line of a program that was called by the name of a link to
// it: containerd runs every file of a directory as it is, without a command.
func invoked(args []string) []string {
	if len(args) == 0 {
		return nil
	}
	name := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
	for _, command := range []string{"image-verifier", "credential-provider"} {
		if strings.HasPrefix(name, "gatehouse-"+command) {
			return append([]string{command}, args[1:]...)
		}
	}
	return args[1:]
}

// containerdFlags writes the flags that containerd hands over with one dash as all
// others are written.
func containerdFlags(args []string) []string {
	if len(args) == 0 || args[0] != "image-verifier" {
		return args
	}
	out := []string{args[0]}
	for _, arg := range args[1:] {
		name, _, _ := strings.Cut(arg, "=")
		if name == "-name" || name == "-digest" || name == "-stdin-media-type" {
			arg = "-" + arg
		}
		out = append(out, arg)
	}
	return out
}
