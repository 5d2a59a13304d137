package cip

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
)

// KindTrustRoot is the kind of documents that say which certificates and logs are
// trusted. It is no policy: policies name it.
const KindTrustRoot = "TrustRoot"

// entriesMax bounds the entries of one list of a TrustRoot.
const entriesMax = 256

// SchemaTrustRoot returns the grammar of a TrustRoot.
func SchemaTrustRoot() manifest.Type {
	text := manifest.Type{}
	ca := listOf(manifest.Type{Kind: manifest.Object, Shape: "{uri, certChain}", Fields: []manifest.Field{
		{Name: "subject", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{{Name: "organization"}, {Name: "commonName"}}}},
		{Name: "uri"},
		{Name: "certChain", Type: manifest.Type{PEM: true}},
	}})
	log := listOf(manifest.Type{Kind: manifest.Object, Shape: "{baseURL, hashAlgorithm, publicKey}", Fields: []manifest.Field{
		{Name: "baseURL"}, {Name: "hashAlgorithm"}, {Name: "publicKey", Type: manifest.Type{PEM: true}}, {Name: "logID"},
	}})
	return manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
		{Name: "apiVersion", Required: true},
		{Name: "kind", Required: true},
		{Name: "metadata", Type: manifest.Metadata(), Required: true},
		{Name: "spec", Required: true, Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
			{Name: "remote", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
				{Name: "root"}, {Name: "mirror"}, {Name: "targets"}, {Name: "trustedRootTarget"},
			}}},
			{Name: "repository", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
				{Name: "root"}, {Name: "mirrorFS"}, {Name: "targets"}, {Name: "trustedRootTarget"},
			}}},
			{Name: "sigstoreKeys", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
				{Name: "certificateAuthorities", Type: ca}, {Name: "tLogs", Type: log}, {Name: "ctLogs", Type: log}, {Name: "timestampAuthorities", Type: ca},
			}}},
			{Name: "trustedRootJSON", Type: text},
		}}},
		{Name: "status", Type: manifest.Type{Kind: manifest.Any}},
	}}
}

type trustRoot struct {
	Metadata struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec struct {
		Remote          *tufRef       `yaml:"remote"`
		Repository      *tufRef       `yaml:"repository"`
		SigstoreKeys    *sigstoreKeys `yaml:"sigstoreKeys"`
		TrustedRootJSON string        `yaml:"trustedRootJSON"`
	} `yaml:"spec"`
}

type tufRef struct {
	Root     string `yaml:"root"`
	Mirror   string `yaml:"mirror"`
	MirrorFS string `yaml:"mirrorFS"`
	Targets  string `yaml:"targets"`
	Target   string `yaml:"trustedRootTarget"`
}

type sigstoreKeys struct {
	CAs    []trustCA  `yaml:"certificateAuthorities"`
	Logs   []trustLog `yaml:"tLogs"`
	CTLogs []trustLog `yaml:"ctLogs"`
	TSAs   []trustCA  `yaml:"timestampAuthorities"`
}

type trustCA struct {
	URI       string `yaml:"uri"`
	CertChain string `yaml:"certChain"`
}

type trustLog struct {
	BaseURL       string `yaml:"baseURL"`
	HashAlgorithm string `yaml:"hashAlgorithm"`
	PublicKey     string `yaml:"publicKey"`
}

// ParseTrustRoot reads one TrustRoot: its name and the trusted root that it
// stands for. With problems that are not warnings there is no root.
func ParseTrustRoot(doc *manifest.Document, outside Outside) (name string, root []byte, problems []decide.Problem) {
	p := parser{doc: doc, outside: outside}
	name = doc.Field("metadata", "name")
	if v := doc.Field("apiVersion"); v != Group+"/v1alpha1" {
		p.problem("apiVersion", fmt.Sprintf("%q is not a version of %s", clip(v), KindTrustRoot), "use "+Group+"/v1alpha1")
		return name, nil, p.problems
	}
	p.problems = append(p.problems, doc.Check(SchemaTrustRoot())...)
	var obj trustRoot
	if err := doc.Root.Decode(&obj); err != nil && len(p.problems) == 0 {
		p.problem("", "the document cannot be read: "+clip(err.Error()), "")
	}
	if name != "" && !manifest.ValidName(name) {
		p.problem("metadata.name", "invalid value: "+clip(name), "use lower-case letters, digits, - and .")
	}
	if len(decide.Errors(p.problems)) == 0 {
		root = p.trustRoot(obj)
	}
	if len(decide.Errors(p.problems)) > 0 {
		return name, nil, p.problems
	}
	return name, root, p.problems
}

func (p *parser) trustRoot(obj trustRoot) []byte {
	s := obj.Spec
	var given []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"spec.remote", s.Remote != nil}, {"spec.repository", s.Repository != nil},
		{"spec.sigstoreKeys", s.SigstoreKeys != nil}, {"spec.trustedRootJSON", s.TrustedRootJSON != ""},
	} {
		if f.set {
			given = append(given, f.name)
		}
	}
	switch {
	case len(given) == 0:
		p.problem("spec", "expected exactly one, got neither: spec.remote, spec.repository, spec.sigstoreKeys, spec.trustedRootJSON",
			"gatehouse's own is at /tuf/targets/trusted_root.json: put it into trustedRootJSON, or its keys into sigstoreKeys")
	case len(given) > 1:
		p.problem("spec", "expected exactly one, got both: "+strings.Join(given, ", "), "")
	case s.SigstoreKeys != nil:
		return p.sigstoreKeys("spec.sigstoreKeys", *s.SigstoreKeys)
	case s.Remote != nil:
		return p.tuf("spec.remote", *s.Remote, true)
	case s.Repository != nil:
		return p.tuf("spec.repository", *s.Repository, false)
	default:
		return p.document("spec.trustedRootJSON", []byte(s.TrustedRootJSON))
	}
	return nil
}

// document checks a whole trusted root and writes it in our form.
func (p *parser) document(path string, text []byte) []byte {
	root, err := trust.Merge(text)
	if err == nil {
		_, err = trust.Parse(root)
	}
	if err != nil {
		p.problem(path, "is no trusted root: "+clip(err.Error()), "paste trusted_root.json as it is, indented under trustedRootJSON: |")
		return nil
	}
	return root
}

func (p *parser) sigstoreKeys(path string, k sigstoreKeys) []byte {
	if len(k.CAs)+len(k.TSAs)+len(k.Logs)+len(k.CTLogs) == 0 {
		p.problem(path, "expected at least one, got neither: "+path+".certificateAuthorities, "+path+".timestampAuthorities", "as it stands, it trusts nobody")
		return nil
	}
	if n := max(len(k.CAs), len(k.TSAs), len(k.Logs), len(k.CTLogs)); n > entriesMax {
		p.problem(path, fmt.Sprintf("names %d of a kind, %d are allowed", n, entriesMax), "")
		return nil
	}
	// Each entry is made alone, so that what is wrong is told where it is.
	var all [][]byte
	add := func(path string, made trust.PEM) {
		root, err := trust.FromPEM(made)
		if err != nil {
			p.problem(path, clip(err.Error()), gatehouse.HintOf(err))
			return
		}
		all = append(all, root)
	}
	for _, list := range []struct {
		name string
		cas  []trustCA
		tsa  bool
	}{{"certificateAuthorities", k.CAs, false}, {"timestampAuthorities", k.TSAs, true}} {
		for i, ca := range list.cas {
			at := fmt.Sprintf("%s.%s[%d]", path, list.name, i)
			chain, ok := p.encoded(at, "certChain", ca.CertChain)
			if !ok {
				continue
			}
			one := []trust.CA{{Chain: chain, URL: ca.URI}}
			if list.tsa {
				add(at+".certChain", trust.PEM{TSAs: one})
			} else {
				add(at+".certChain", trust.PEM{CAs: one})
			}
		}
	}
	p.logs(path+".tLogs", k.Logs, false, add)
	p.logs(path+".ctLogs", k.CTLogs, true, add)
	root, err := trust.Merge(all...)
	if err != nil {
		p.problem(path, clip(err.Error()), gatehouse.HintOf(err))
	}
	return root
}

// logs adds the logs of one list, each by itself.
func (p *parser) logs(path string, list []trustLog, ct bool, add func(string, trust.PEM)) {
	for i, l := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if h := strings.ReplaceAll(strings.ToLower(l.HashAlgorithm), "_", "-"); !slices.Contains([]string{"", "sha-256", "sha256", "sha2-256"}, h) {
			p.problem(at+".hashAlgorithm", "invalid value: "+clip(l.HashAlgorithm), "logs of Sigstore use sha-256")
		}
		if !ct && l.BaseURL == "" {
			p.missing(at, "baseURL")
		}
		key, ok := p.encoded(at, "publicKey", l.PublicKey)
		if !ok {
			continue
		}
		if ct {
			add(at+".publicKey", trust.PEM{CTLogs: []trust.Log{{Key: key, URL: l.BaseURL}}})
			continue
		}
		add(at+".publicKey", trust.PEM{Logs: []trust.Log{{Key: key, URL: l.BaseURL}}})
		// A log of Rekor v2 has an id made of its name, too.
		if u, err := url.Parse(l.BaseURL); err == nil && u.Hostname() != "" {
			add(at+".publicKey", trust.PEM{Logs: []trust.Log{{Key: key, URL: l.BaseURL, Origin: u.Hostname()}}})
		}
	}
}

// encoded reads PEM that is base64, as the API server writes it, or plain.
func (p *parser) encoded(path, name, value string) (string, bool) {
	value = strings.TrimSpace(value)
	if value == "" {
		p.missing(path, name)
		return "", false
	}
	if strings.HasPrefix(value, "-----BEGIN") {
		return value, true
	}
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(value), ""))
	if err != nil || !strings.Contains(string(b), "-----BEGIN") {
		p.problem(path+"."+name, "is not PEM, and not PEM in base64", "write: base64 -w0 FILE.pem")
		return "", false
	}
	return string(b), true
}

// tuf has the trusted root of a TUF repository read by whoever can.
func (p *parser) tuf(path string, ref tufRef, remote bool) []byte {
	repository := TUF{Mirror: ref.Mirror, Targets: ref.Targets, Target: ref.Target}
	root := strings.TrimSpace(ref.Root)
	if root == "" {
		p.missing(path, "root")
		return nil
	}
	if repository.Root = []byte(root); !strings.HasPrefix(root, "{") {
		repository.Root, _ = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(root), ""))
	}
	var shape struct {
		Signatures []json.RawMessage `json:"signatures"`
	}
	if json.Unmarshal(repository.Root, &shape) != nil || len(shape.Signatures) == 0 {
		p.problem(path+".root", "is not a signed root.json, and not one in base64", "write: base64 -w0 root.json")
		return nil
	}
	switch {
	case remote && ref.MirrorFS != "":
		p.problem(path+".mirrorFS", "belongs to spec.repository", "")
	case remote && !strings.HasPrefix(ref.Mirror, "https://") && !strings.HasPrefix(ref.Mirror, "http://"):
		p.problem(path+".mirror", "invalid value: "+clip(ref.Mirror), "give the address of the repository, https://…")
	case !remote && ref.Mirror != "":
		p.problem(path+".mirror", "belongs to spec.remote", "")
	case !remote:
		archive, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(ref.MirrorFS), ""))
		if err != nil || len(archive) == 0 {
			p.problem(path+".mirrorFS", "is not a tar archive, gzipped, in base64", "write: tar cz repository | base64 -w0")
		}
		repository.Archive = archive
	}
	if len(decide.Errors(p.problems)) > 0 {
		return nil
	}
	if repository.Target == "" {
		repository.Target = "trusted_root.json"
	}
	if p.outside.Repository == nil {
		p.problem(path, "a TUF repository cannot be read here, so the trust root is not known",
			"fetch its trusted_root.json (gatehouse initialize, cosign initialize) and put it into spec.trustedRootJSON")
		return nil
	}
	document, err := p.outside.Repository(repository)
	if err != nil {
		p.failed(path, "the trust root cannot be read from the TUF repository: ", err)
		return nil
	}
	return p.document(path, document)
}
