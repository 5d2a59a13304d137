package load

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// Kinds of objects that hold what policies refer to. They are no policies.
const (
	kindSecret    = "Secret"
	kindConfigMap = "ConfigMap"
)

// held is a Secret or ConfigMap whose manifest lies beside the policies.
type held struct {
	kind, namespace, name string
	data                  map[string][]byte
}

// heldGrammar is the grammar of a Secret or ConfigMap.
func heldGrammar(kind string) manifest.Type {
	texts := manifest.Type{Kind: manifest.TextMap}
	fields := []manifest.Field{
		{Name: "apiVersion", Required: true}, {Name: "kind", Required: true},
		{Name: "metadata", Type: manifest.Metadata(), Required: true},
		{Name: "immutable", Type: manifest.Type{Kind: manifest.Bool}},
		{Name: "data", Type: texts},
	}
	if kind == kindSecret {
		fields = append(fields, manifest.Field{Name: "stringData", Type: texts}, manifest.Field{Name: "type"})
	} else {
		fields = append(fields, manifest.Field{Name: "binaryData", Type: texts})
	}
	return manifest.Type{Kind: manifest.Object, Fields: fields}
}

// hold reads the manifest of a Secret or ConfigMap.
func (l *loader) hold(doc *manifest.Document, kind string) {
	problems := doc.Check(heldGrammar(kind))
	var obj struct {
		Data, StringData, BinaryData map[string]string
	}
	for _, part := range []struct {
		name string
		to   *map[string]string
	}{{"data", &obj.Data}, {"stringData", &obj.StringData}, {"binaryData", &obj.BinaryData}} {
		if err := decodeTexts(manifest.Get(doc.Root, part.name), part.to); err != nil && len(problems) == 0 {
			problems = append(problems, doc.Problem(doc.At(part.name), part.name, "cannot be read: "+clip(err.Error()), ""))
		}
	}
	h := held{kind: kind, namespace: doc.Field("metadata", "namespace"), name: doc.Field("metadata", "name"), data: map[string][]byte{}}
	encoded, plain := obj.BinaryData, obj.Data
	if kind == kindSecret {
		encoded, plain = obj.Data, obj.StringData
	}
	for _, key := range slices.Sorted(maps.Keys(encoded)) {
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(encoded[key]), ""))
		if err != nil {
			problems = append(problems, doc.Problem(doc.At("data."+key), "data."+clip(key), "is not base64", "write the text itself into stringData"))
		}
		h.data[key] = b
	}
	for key, text := range plain {
		h.data[key] = []byte(text)
	}
	l.problems = append(l.problems, problems...)
	where := kind + " " + h.namespace + "/" + h.name
	if len(decide.Errors(problems)) == 0 && l.claim(where, doc.Path, doc.Line, "there is a "+kind+" of this name in %s", "one of them counts; delete the other") {
		l.held = append(l.held, h)
	}
}

func decodeTexts(n *yaml.Node, to *map[string]string) error {
	if n == nil {
		return nil
	}
	return n.Decode(to)
}

// beside finds an object among the manifests. Without a namespace on one of the two
// sides the name is enough, as long as it is the only one of it.
func (l *loader) beside(kind, namespace, name string) (map[string][]byte, bool, error) {
	var found []held
	for _, h := range l.held {
		if h.kind == kind && h.name == name && (h.namespace == namespace || h.namespace == "" || namespace == "") {
			found = append(found, h)
		}
	}
	switch len(found) {
	case 0:
		return nil, false, nil
	case 1:
		return found[0].data, true, nil
	}
	return nil, true, gatehouse.Errorf(gatehouse.CodeConflict, "there are several of this name beside the policies").WithHint("name its namespace")
}

// refer wraps what policies may refer to: manifests beside the policies come first,
// and all that was read becomes part of the digest of the set.
func (l *loader) refer(o cip.Outside) cip.Outside {
	out := o
	out.Secret, out.ConfigMap = l.secrets(o), l.configMaps(o)
	if o.Key != nil {
		out.Key = func(uri string) (string, error) {
			text, err := o.Key(uri)
			l.read("key", uri, []byte(text), err)
			return text, err
		}
	}
	if o.Remote != nil {
		out.Remote = func(url, sum string) ([]byte, error) {
			b, err := o.Remote(url, sum)
			l.read("remote", url, b, err)
			return b, err
		}
	}
	if o.Repository != nil {
		out.Repository = func(t cip.TUF) ([]byte, error) {
			b, err := o.Repository(t)
			l.read("repository", t.Mirror, b, err)
			return b, err
		}
	}
	return out
}

func (l *loader) secrets(o cip.Outside) func(namespace, name string) (map[string][]byte, error) {
	if o.Secret == nil && !slices.ContainsFunc(l.held, func(h held) bool { return h.kind == kindSecret }) {
		return nil
	}
	return func(namespace, name string) (data map[string][]byte, err error) {
		data, found, err := l.beside(kindSecret, namespace, name)
		switch {
		case found:
		case o.Secret == nil:
			err = gatehouse.Errorf(gatehouse.CodeNotFound, "there is none beside the policies").WithHint("its manifest may lie beside them")
		default:
			data, err = o.Secret(namespace, name)
		}
		l.readAll(kindSecret, namespace+"/"+name, data, err)
		return data, err
	}
}

func (l *loader) configMaps(o cip.Outside) func(namespace, name string) (map[string]string, error) {
	if o.ConfigMap == nil && !slices.ContainsFunc(l.held, func(h held) bool { return h.kind == kindConfigMap }) {
		return nil
	}
	return func(namespace, name string) (map[string]string, error) {
		raw, found, err := l.beside(kindConfigMap, namespace, name)
		data := map[string]string{}
		switch {
		case found:
			for key, b := range raw {
				if utf8.Valid(b) {
					data[key] = string(b)
				}
			}
		case o.ConfigMap == nil:
			err = gatehouse.Errorf(gatehouse.CodeNotFound, "there is none beside the policies").WithHint("its manifest may lie beside them")
		default:
			data, err = o.ConfigMap(namespace, name)
		}
		all := map[string][]byte{}
		for key, text := range data {
			all[key] = []byte(text)
		}
		l.readAll(kindConfigMap, namespace+"/"+name, all, err)
		return data, err
	}
}

// read notes what was read from outside, for the digest of the set.
func (l *loader) read(kind, name string, data []byte, err error) {
	if err == nil {
		l.referred = append(l.referred, fmt.Sprintf("%s %s %s", kind, name, gatehouse.DigestOf(data)))
	}
}

func (l *loader) readAll(kind, name string, data map[string][]byte, err error) {
	for _, key := range slices.Sorted(maps.Keys(data)) {
		l.read(kind, name+" "+key, data[key], err)
	}
}
