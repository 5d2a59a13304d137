package server

import (
	"context"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/operator"
)

// clusterObjects reads Secrets and ConfigMaps of the cluster as this replica knows them
// now. It implements outside.Cluster.
type clusterObjects struct {
	view *operator.View
	home string
}

// Namespace is ours.
func (c clusterObjects) Namespace() string { return c.home }

// Secret is one of ours as it was seen last, or another as far as we may read it.
func (c clusterObjects) Secret(namespace, name string) (map[string][]byte, error) {
	return c.view.PullSecret(context.Background(), namespace, name) // it bounds itself
}

// ConfigMap is one of ours.
func (c clusterObjects) ConfigMap(_, name string) (map[string]string, error) {
	data, err := c.view.ConfigMap(name)
	return textsOf(data), err
}

func textsOf(data map[string][]byte) map[string]string {
	out := map[string]string{}
	for key, b := range data {
		if utf8.Valid(b) {
			out[key] = string(b)
		}
	}
	return out
}

// referred is what the database has of the Secrets and ConfigMaps that policies name,
// by path. It is the same on every replica, and outlives the cluster's absence.
type referred map[string]map[string][]byte

// referredOf reads the documents that are no policies. One that cannot be read is as if
// it were not there: the cluster is asked itself.
func referredOf(docs []db.Policy) referred {
	out := referred{}
	for _, d := range docs {
		if !isReference(d.Name) {
			continue
		}
		if data, err := operator.Referred(d.Source); err == nil {
			out[d.Name] = data
		}
	}
	return out
}

// refer lets policies read what the database has of Secrets and ConfigMaps; for what it
// does not have yet the cluster is asked. asked is told of each that a policy names.
func (r referred) refer(o *cip.Outside, asked func(operator.Reference)) {
	if o.Secret == nil || o.ConfigMap == nil {
		return // there is no cluster
	}
	secret, configMap := o.Secret, o.ConfigMap
	o.Secret = func(namespace, name string) (map[string][]byte, error) {
		ref := operator.Reference{Kind: "Secret", Namespace: namespace, Name: name}
		asked(ref)
		if data, ok := r[ref.Path()]; ok {
			return data, nil
		}
		data, err := secret(namespace, name)
		if some := operator.Public(data); len(some) > 0 {
			data = some // as the database will have it
		}
		return data, err
	}
	o.ConfigMap = func(namespace, name string) (map[string]string, error) {
		ref := operator.Reference{Kind: "ConfigMap", Namespace: namespace, Name: name}
		asked(ref)
		if data, ok := r[ref.Path()]; ok {
			return textsOf(data), nil
		}
		return configMap(namespace, name)
	}
}

// named lists what the policies in force refer to in our namespace, wherever they came
// from.
func (p *policies) named() []operator.Reference {
	if c := p.current.Load(); c != nil {
		return c.named
	}
	return nil
}
