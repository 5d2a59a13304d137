// Package keyref turns what people write after --key into a key: the path of a
// file, env://NAME, k8s://NAMESPACE/SECRET, the public key at an https:// address,
// and SCHEME://… of a key service, through a program on PATH that speaks
// Sigstore's KMS plugin protocol. In goes the reference, out comes a key that
// signs or a public key; keys of a service stay there.
package keyref

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// keySizeMax bounds a key in bytes, wherever it comes from.
const keySizeMax = 64 << 10

// Options say what a reference may reach. The zero value reaches nothing: a
// reference that came from a policy or over the network must not name files,
// variables, programs or credentials of the machine that follows it.
type Options struct {
	// Local lets a reference name what lies on this machine: files, variables of
	// the environment, plugin programs and the user's own cluster credentials. A
	// command that a person types sets it.
	Local bool
	// Services are the schemes of key services whose plugin programs may be run for a
	// reference, although it may not name anything else of this machine.
	Services []string
	// Getenv is os.Getenv in a program; nil is an empty environment.
	Getenv func(string) string
	// Password is asked for where a private key needs one; nil means that there is
	// none. confirm is set where a new one is chosen.
	Password func(confirm bool) ([]byte, error)
	// Cluster is the Kubernetes API that k8s:// means. nil with Local: the one that
	// kubectl would take, or that of the pod.
	Cluster *Cluster
	// Proxies are those of connections to a cluster or an https:// key.
	Proxies egress.Proxies
	// Stderr gets what plugin programs write there; nil drops it.
	Stderr io.Writer
}

func (o Options) getenv(name string) string {
	if o.Getenv == nil {
		return ""
	}
	return o.Getenv(name)
}

func (o Options) password(confirm bool) ([]byte, error) {
	if o.Password == nil {
		return nil, nil
	}
	return o.Password(confirm)
}

// Kinds of a reference.
type kind int

const (
	kindFile kind = iota
	kindEnv
	kindCluster
	kindWeb
	kindPlugin
)

// schemeForm is what a plugin's name may look like: it becomes part of the name
// of a program.
var schemeForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)

// parse tells the kinds apart. Errors: CodeInvalid.
func parse(ref string) (kind, string, error) {
	if strings.HasPrefix(ref, "pkcs11:") {
		return 0, "", gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: PKCS#11 tokens are not spoken to directly", clip(ref)).
			WithHint("put a KMS plugin for the token on PATH, sigstore-kms-NAME, and write NAME://KEY")
	}
	scheme, rest, ok := strings.Cut(ref, "://")
	switch {
	case ref == "":
		return 0, "", gatehouse.Errorf(gatehouse.CodeInvalid, "the reference of the key is empty")
	case !ok:
		return kindFile, ref, nil
	case rest == "":
		return 0, "", gatehouse.Errorf(gatehouse.CodeInvalid, "key %s names no key", clip(ref))
	}
	switch scheme {
	case "env":
		return kindEnv, rest, nil
	case "k8s":
		return kindCluster, rest, nil
	case "https":
		return kindWeb, ref, nil
	case "http":
		return 0, "", gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: whoever is on the way could put in another key", clip(ref)).WithHint("use https://")
	case "file":
		return 0, "", gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: a file is named by its path alone", clip(ref)).WithHint("leave out file://")
	}
	if !schemeForm.MatchString(scheme) {
		return 0, "", gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: %q is not the name of a key service", clip(ref), clip(scheme)).
			WithHint("give a file, env://NAME, k8s://NAMESPACE/SECRET or SCHEME://… of a key service")
	}
	return kindPlugin, ref, nil
}

// Stored tells whether ref names a key that a service or a cluster keeps, so
// that no password is asked for first.
func Stored(ref string) bool {
	k, _, err := parse(ref)
	return err == nil && (k == kindCluster || k == kindPlugin)
}

// Storable says why [Store] would refuse ref, before a key is made for it.
// Errors: CodeInvalid.
func Storable(ref string) error {
	k, rest, err := parse(ref)
	if err != nil {
		return err
	}
	if k != kindCluster {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: a new key pair cannot be kept there", clip(ref)).
			WithHint("give k8s://NAMESPACE/SECRET, or --kms SCHEME://… for a key service")
	}
	_, _, err = secretOf(rest)
	return err
}

// Signer finds a private key. Errors: CodeInvalid (no such reference, no such
// key), CodeDenied (wrong password, or no permission), CodeNotFound,
// CodeUnavailable (a service does not answer).
func Signer(ctx context.Context, ref string, o Options) (*sign.Key, error) {
	k, rest, err := parse(ref)
	if err != nil {
		return nil, err
	}
	switch k {
	case kindPlugin:
		return pluginSigner(ctx, ref, o)
	case kindCluster:
		return clusterSigner(ctx, rest, o)
	case kindWeb:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: a private key is not fetched over the network", clip(ref)).
			WithHint("give a file, env://NAME, k8s://NAMESPACE/SECRET or SCHEME://… of a key service")
	}
	file, err := Read(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	var password []byte
	if sign.Encrypted(file) { // else it fails, and nobody is asked in vain
		if password, err = o.password(false); err != nil {
			return nil, err
		}
	}
	return sign.LoadKey(file, password)
}

// Public finds a public key and returns it in PEM ("PUBLIC KEY"). A file may hold
// several. Errors: as [Signer].
func Public(ctx context.Context, ref string, o Options) ([]byte, error) {
	k, rest, err := parse(ref)
	if err != nil {
		return nil, err
	}
	switch k {
	case kindPlugin:
		return pluginPublic(ctx, ref, o)
	case kindCluster:
		return clusterPublic(ctx, rest, o)
	}
	file, err := Read(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	switch block, _ := pem.Decode(file); {
	case block == nil:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s is not PEM", clip(ref)).
			WithHint("a public key begins with -----BEGIN PUBLIC KEY----- as in cosign.pub")
	case strings.Contains(block.Type, "PRIVATE"):
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s is a private key", clip(ref)).
			WithHint("give the public one, cosign.pub; `gatehouse public-key --key` makes it from the private one")
	}
	return file, nil
}

// Read returns the bytes that a file, a variable or an https:// address holds,
// 64 KiB at most. Errors: CodeInvalid, CodeTooLarge, CodeUnavailable.
func Read(ctx context.Context, ref string, o Options) ([]byte, error) {
	k, rest, err := parse(ref)
	if err != nil {
		return nil, err
	}
	if k != kindWeb && !o.Local {
		return nil, notLocal(ref)
	}
	switch k {
	case kindEnv:
		v := o.getenv(rest)
		if v == "" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: the variable is not set", clip(ref))
		}
		return bounded(ref, strings.NewReader(v))
	case kindWeb:
		return readWeb(ctx, ref, o)
	case kindFile:
		f, err := os.Open(rest)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the key: %w", err)
		}
		defer f.Close()
		return bounded(ref, f)
	}
	return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s is not one whose bytes can be read", clip(ref))
}

func bounded(ref string, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, keySizeMax+1))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the key: %w", err)
	}
	if len(b) > keySizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "key %s has more than %d bytes", clip(ref), keySizeMax)
	}
	return b, nil
}

func notLocal(ref string) error {
	return gatehouse.Errorf(gatehouse.CodeDenied, "key %s lies on the machine, which may not be looked into here", clip(ref)).
		WithHint("give the public key itself")
}

// Generate makes a key in the service that ref names and returns its public key
// in PEM. algorithm is a name of the service's own; empty is what it prefers.
// Errors: as [Signer].
func Generate(ctx context.Context, ref, algorithm string, o Options) ([]byte, error) {
	k, _, err := parse(ref)
	if err != nil {
		return nil, err
	}
	if k != kindPlugin {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s is not of a key service", clip(ref)).
			WithHint("a key in a cluster is made with `gatehouse generate-key-pair k8s://NAMESPACE/SECRET`")
	}
	return pluginGenerate(ctx, ref, algorithm, o)
}

// Store keeps a key pair and its password where ref says, k8s://NAMESPACE/SECRET,
// in cosign's form. A secret that holds a key is replaced only where overwrite is
// set; what else it holds is kept. Errors: CodeConflict (there is a key), else as
// [Signer].
func Store(ctx context.Context, ref string, pair sign.KeyPair, password []byte, overwrite bool, o Options) error {
	if err := Storable(ref); err != nil {
		return err
	}
	return clusterStore(ctx, strings.TrimPrefix(ref, "k8s://"), pair, password, overwrite, o)
}

// publicPEM checks what a service or a secret gave for a public key.
func publicPEM(ref string, text []byte) ([]byte, any, error) {
	bad := func(err error) error {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: what is there is not a PEM public key: %w", clip(ref), err)
	}
	if len(text) > keySizeMax {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "key %s has more than %d bytes", clip(ref), keySizeMax)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, bad(errors.New("there is no block PUBLIC KEY alone"))
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, nil, bad(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: block.Bytes}), key, nil
}
