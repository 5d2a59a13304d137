package cip

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// This file reads what policies refer to. Every method returns "" where it has told
// a problem.

// failed tells that something cannot be read. What the policy says may be wrong, or
// it may be read later.
func (p *parser) failed(at, what string, err error) {
	p.problem(at, what+clip(err.Error()), gatehouse.HintOf(err))
	switch gatehouse.CodeOf(err) {
	case gatehouse.CodeInvalid, gatehouse.CodeDenied, gatehouse.CodeTooLarge:
	default:
		p.problems[len(p.problems)-1].Elsewhere = true
	}
}

// kms asks a key service for its public keys.
func (p *parser) kms(at, uri string) string {
	if p.outside.Key == nil {
		p.problem(at, "key services cannot be asked here, so the key is not known",
			"print its public key with gatehouse public-key --key "+clip(uri)+" and put it into key.data")
		return ""
	}
	text, err := p.outside.Key(uri)
	if err == nil && text == "" {
		err = gatehouse.Errorf(gatehouse.CodeNotFound, "there is no key")
	}
	if err != nil {
		p.failed(at, "the public key of "+clip(uri)+" cannot be read: ", err)
		return ""
	}
	return text
}

// secret reads a public key or certificates from a Secret: from the entry of the
// name that cosign writes, or from the only one.
func (p *parser) secret(at string, ref *secretRef, preferred string) string {
	if ref.Name == "" {
		p.missing(at, "name")
		return ""
	}
	namespace := p.namespace(at, ref.Namespace, "Secrets")
	if p.outside.Secret == nil {
		p.problem(at, "there is no cluster here to read Secret "+clip(ref.Name)+" from", "put the manifest of the Secret beside the policies, or what it holds into data: |")
		return ""
	}
	data, err := p.outside.Secret(namespace, ref.Name)
	if err != nil {
		p.failed(at, "Secret "+clip(ref.Name)+" cannot be read: ", err)
		return ""
	}
	entry, has := data[preferred]
	if !has && len(data) == 1 {
		for _, entry = range data {
			has = true
		}
	}
	switch {
	case len(data) == 0:
		p.absent(at, fmt.Sprintf("secret %q contains no data", clip(ref.Name)), "cosign generate-key-pair k8s://NAMESPACE/NAME writes it")
	case !has:
		p.absent(at, fmt.Sprintf("secret %q contains multiple data entries, and none is %s", clip(ref.Name), preferred), "name the entry with the public key "+preferred+"; there are "+names(data))
	case len(strings.TrimSpace(string(entry))) == 0:
		p.absent(at, fmt.Sprintf("the entry of secret %q is empty", clip(ref.Name)), "")
	default:
		return string(entry)
	}
	return ""
}

// configMap reads a policy from an entry of a ConfigMap.
func (p *parser) configMap(at string, ref *configMapRef) string {
	before := len(p.problems)
	if ref.Name == "" {
		p.missing(at, "name")
	}
	if ref.Key == "" {
		p.missing(at, "key")
	}
	if len(p.problems) > before {
		return ""
	}
	namespace := p.namespace(at, ref.Namespace, "ConfigMaps")
	if p.outside.ConfigMap == nil {
		p.problem(at, "there is no cluster here to read ConfigMap "+clip(ref.Name)+" from", "put the manifest of the ConfigMap beside the policies, or the policy itself into data: |")
		return ""
	}
	data, err := p.outside.ConfigMap(namespace, ref.Name)
	if err != nil {
		p.failed(at, "ConfigMap "+clip(ref.Name)+" cannot be read: ", err)
		return ""
	}
	if data[ref.Key] == "" {
		p.absent(at+".key", fmt.Sprintf("configmap %q does not contain key %s", clip(ref.Name), clip(ref.Key)), "it has "+names(data))
	}
	return data[ref.Key]
}

// namespace is the one to read from. Gatehouse may not read what lies in others than
// its own, whatever the policy says; policy-controller does not look at it either.
func (p *parser) namespace(at, given, what string) string {
	own := p.outside.Namespace
	if own == "" {
		return given
	}
	if given != "" && given != own {
		p.warn(at+".namespace", what+" are read from Gatehouse's own namespace, "+own+", not from "+clip(given), "put it into "+own+", and delete namespace")
	}
	return own
}

var sha256sum = regexp.MustCompile(`^[0-9a-f]{64}$`)

// remote reads a policy from a server.
func (p *parser) remote(at, url, sum string) string {
	before := len(p.problems)
	if url == "" {
		p.missing(at, "url")
	} else if !strings.HasPrefix(url, "https://") {
		p.problem(at+".url", "invalid value: "+clip(url), "use https://")
	}
	sum = strings.ToLower(sum)
	if sum == "" {
		p.missing(at, "sha256sum")
	} else if !sha256sum.MatchString(sum) {
		p.problem(at+".sha256sum", "invalid value: "+clip(sum), "write the 64 hexadecimal digits that sha256sum prints")
	}
	if len(p.problems) > before {
		return ""
	}
	if p.outside.Remote == nil {
		p.problem(at, "documents on servers cannot be fetched here, so the policy is not known", "write the policy itself into data: |")
		return ""
	}
	text, err := p.outside.Remote(url, sum)
	if err == nil && len(text) == 0 {
		err = gatehouse.Errorf(gatehouse.CodeInvalid, "it is empty")
	}
	if err != nil {
		p.failed(at, "the policy at "+clip(url)+" cannot be read: ", err)
		return ""
	}
	return string(text)
}

// chain reads the certificates of ca-cert, and returns the field that they came
// from.
func (p *parser) chain(at string, k *keyRef) (pem, field string) {
	switch {
	case k.KMS != "":
		p.problem(at+".kms", "a key service holds keys, not certificates", "give the certificates of the authority in PEM, in data or in a Secret")
	case k.Data != "" && k.SecretRef != nil:
		p.problem(at, "expected exactly one, got both: "+at+".data, "+at+".secretRef", "")
	case k.Data != "":
		return k.Data, at + ".data"
	case k.SecretRef != nil:
		return p.secret(at+".secretRef", k.SecretRef, "ca.crt"), at + ".secretRef"
	default:
		p.problem(at, "missing field(s): "+at+".data", "give the certificates of the authority in PEM, in data or in a Secret")
	}
	return "", at
}

// names lists what an object holds, for hints.
func names[T any](data map[string]T) string {
	list := slices.Sorted(maps.Keys(data))
	for i := range list {
		list[i] = clip(list[i])
	}
	if len(list) > 10 {
		list = append(list[:10], "…")
	}
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}
