package quickstart

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// The story's cluster gives its Pods identity tokens, as every Kubernetes does.
// Nobody is asked for its keys over a network: the server reads them from a file.
const (
	clusterIssuer  = "https://kubernetes.default.svc"
	builder        = "system:serviceaccount:ci:builder"
	builderName    = "https://kubernetes.io/namespaces/ci/serviceaccounts/builder" // in certificates
	tokenLife      = 10 * time.Minute
	clusterKeyFile = "cluster-keys.json"
)

// cluster issues identity tokens.
type cluster struct {
	key  *ecdsa.PrivateKey
	file string // its public keys, for the server
}

// newCluster makes the keys of a cluster, and tells them in a file under dir.
func newCluster(dir string) (*cluster, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	point, err := key.PublicKey.Bytes() // SEC 1, uncompressed: 4, x, y
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	jwks, err := json.Marshal(object{"keys": []object{{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "story", "x": encode(point[1:33]), "y": encode(point[33:]),
	}}})
	if err != nil {
		return nil, err
	}
	c := &cluster{key, filepath.Join(dir, clusterKeyFile)}
	return c, os.WriteFile(c.file, jwks, 0o644)
}

// setting is how the server is told of the cluster.
func (c *cluster) setting() string { return "kubernetes+" + clusterIssuer + "?jwks=" + c.file }

// token is what a Pod of a service account finds in its file system (RFC 7515,
// ES256). account is system:serviceaccount:NAMESPACE:NAME.
func (c *cluster) token(account string, now time.Time) (string, error) {
	type object = map[string]any
	header, err := json.Marshal(object{"alg": "ES256", "kid": "story", "typ": "JWT"})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(object{
		"iss": clusterIssuer, "sub": account, "aud": []string{"sigstore"}, "iat": now.Unix(), "exp": now.Add(tokenLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	text := encode(header) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, c.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
