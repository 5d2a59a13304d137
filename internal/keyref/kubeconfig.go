package keyref

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	kubeconfigSizeMax = 1 << 20 // bytes
	kubeconfigsMax    = 20      // files in KUBECONFIG
)

// podFiles is where a pod finds its service account.
const podFiles = "/var/run/secrets/kubernetes.io/serviceaccount"

// findCluster takes the cluster that kubectl would take: of KUBECONFIG, else of
// ~/.kube/config, else that of the pod we run in.
func findCluster(ctx context.Context, o Options, pod string) (*Cluster, error) {
	getenv := o.getenv
	paths, named := filepath.SplitList(getenv("KUBECONFIG")), true
	if len(paths) == 0 {
		named = false
		if home := getenv("HOME"); home != "" {
			paths = []string{filepath.Join(home, ".kube", "config")}
		}
	}
	if len(paths) > kubeconfigsMax {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "KUBECONFIG names %d files, %d at most", len(paths), kubeconfigsMax)
	}
	var all kubeconfig
	for _, path := range paths {
		if path == "" {
			continue
		}
		err := all.add(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // as kubectl does
		}
		if err != nil {
			return nil, err
		}
	}
	if all.read > 0 {
		return all.cluster(ctx, o)
	}
	if c, err := podCluster(getenv, pod); c != nil || err != nil {
		return c, err
	}
	if named {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "none of the files that KUBECONFIG names is there")
	}
	return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "no Kubernetes cluster is configured").
		WithHint("set KUBECONFIG to a kubeconfig file; ~/.kube/config is read too, and in a pod its service account")
}

// podCluster returns nil where we are in no pod; dir holds its service account.
func podCluster(getenv func(string) string, dir string) (*Cluster, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, nil
	}
	token, err := readFile(filepath.Join(dir, "token"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ca, err := readFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the pod's service account: %w", err)
	}
	return &Cluster{URL: "https://" + net.JoinHostPort(host, port), CAs: ca, Token: strings.TrimSpace(string(token))}, nil
}

// kubeconfig is what is read of such files. Where several have an entry of one
// name, the first counts.
type kubeconfig struct {
	read     int
	Current  string         `yaml:"current-context"`
	Clusters []namedCluster `yaml:"clusters"`
	Contexts []namedContext `yaml:"contexts"`
	Users    []namedUser    `yaml:"users"`
}

type namedCluster struct {
	Name    string `yaml:"name"`
	dir     string // of the file, for relative paths
	Cluster struct {
		Server     string `yaml:"server"`
		CAFile     string `yaml:"certificate-authority"`
		CAData     string `yaml:"certificate-authority-data"`
		Insecure   bool   `yaml:"insecure-skip-tls-verify"`
		ServerName string `yaml:"tls-server-name"`
		Proxy      string `yaml:"proxy-url"`
	} `yaml:"cluster"`
}

type namedContext struct {
	Name    string `yaml:"name"`
	Context struct {
		Cluster string `yaml:"cluster"`
		User    string `yaml:"user"`
	} `yaml:"context"`
}

type namedUser struct {
	Name string `yaml:"name"`
	dir  string
	User struct {
		CertFile  string `yaml:"client-certificate"`
		CertData  string `yaml:"client-certificate-data"`
		KeyFile   string `yaml:"client-key"`
		KeyData   string `yaml:"client-key-data"`
		Token     string `yaml:"token"`
		TokenFile string `yaml:"tokenFile"`
		Username  string `yaml:"username"`
		Password  string `yaml:"password"`
		Exec      *login `yaml:"exec"`
		Provider  any    `yaml:"auth-provider"`
	} `yaml:"user"`
}

func (k *kubeconfig) add(path string) error {
	b, err := readFile(path)
	if err != nil {
		return err
	}
	return k.parse(b, path)
}

func (k *kubeconfig) parse(b []byte, path string) error {
	var one kubeconfig
	if err := yaml.Unmarshal(b, &one); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a kubeconfig file: %w", path, err)
	}
	for i := range one.Clusters {
		one.Clusters[i].dir = filepath.Dir(path)
	}
	for i := range one.Users {
		one.Users[i].dir = filepath.Dir(path)
	}
	if k.Current == "" {
		k.Current = one.Current
	}
	k.Clusters = append(k.Clusters, one.Clusters...)
	k.Contexts = append(k.Contexts, one.Contexts...)
	k.Users = append(k.Users, one.Users...)
	k.read++
	return nil
}

// cluster takes the current context apart. Errors: CodeInvalid.
func (k *kubeconfig) cluster(ctx context.Context, o Options) (*Cluster, error) {
	bad := func(format string, args ...any) error {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "kubeconfig: "+format, args...).WithHint("look at `kubectl config view`")
	}
	if k.Current == "" {
		return nil, bad("no context is current")
	}
	current, ok := first(k.Contexts, func(c namedContext) bool { return c.Name == k.Current })
	if !ok {
		return nil, bad("there is no context %q", clip(k.Current))
	}
	server, ok := first(k.Clusters, func(c namedCluster) bool { return c.Name == current.Context.Cluster })
	if !ok {
		return nil, bad("there is no cluster %q", clip(current.Context.Cluster))
	}
	s := server.Cluster
	cas, err := fileOrData(server.dir, s.CAFile, s.CAData)
	if err != nil {
		return nil, bad("certificate authority of cluster %q: %w", clip(server.Name), err)
	}
	c := &Cluster{URL: s.Server, CAs: cas, ServerName: s.ServerName, Unverified: s.Insecure, Proxy: s.Proxy}
	if current.Context.User == "" {
		return c, nil
	}
	user, ok := first(k.Users, func(u namedUser) bool { return u.Name == current.Context.User })
	if !ok {
		return nil, bad("there is no user %q", clip(current.Context.User))
	}
	if err := user.login(ctx, c, o); err != nil {
		return nil, bad("user %q: %w", clip(user.Name), err)
	}
	return c, nil
}

func (u namedUser) login(ctx context.Context, c *Cluster, o Options) error {
	v := u.User
	if v.Provider != nil {
		return errors.New("it is logged in by an auth-provider, which Kubernetes has given up; use exec or a token")
	}
	if v.Exec != nil {
		return v.Exec.run(ctx, u.dir, c, o)
	}
	c.Token, c.User, c.Password = v.Token, v.Username, v.Password
	if v.TokenFile != "" { // the file counts where both are set
		b, err := readFile(inside(u.dir, v.TokenFile))
		if err != nil {
			return err
		}
		c.Token = strings.TrimSpace(string(b))
	}
	cert, err := fileOrData(u.dir, v.CertFile, v.CertData)
	if err != nil || cert == nil {
		return err
	}
	key, err := fileOrData(u.dir, v.KeyFile, v.KeyData)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	c.Certificate = &pair
	return nil
}

func first[T any](list []T, is func(T) bool) (T, bool) {
	for _, v := range list {
		if is(v) {
			return v, true
		}
	}
	var none T
	return none, false
}
