package cip

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
)

// material is a trusted root in its four parts, whose entries are handed on as
// they are.
type material struct {
	MediaType string            `json:"mediaType"`
	CAs       []json.RawMessage `json:"certificateAuthorities,omitempty"`
	CTLogs    []json.RawMessage `json:"ctlogs,omitempty"`
	Logs      []json.RawMessage `json:"tlogs,omitempty"`
	TSAs      []json.RawMessage `json:"timestampAuthorities,omitempty"`
}

// parts reads a trusted root; nil is an empty one.
func parts(document []byte) (m material, err error) {
	if len(document) == 0 {
		return m, nil
	}
	// Merge writes the names of fields in one way.
	if document, err = trust.Merge(document); err != nil {
		return m, err
	}
	err = json.Unmarshal(document, &m)
	return m, err
}

// at keeps the entries whose address, in that field, is url. Without an address
// all stay.
func at(entries []json.RawMessage, field, url string) []json.RawMessage {
	if url == "" {
		return entries
	}
	same := func(a, b string) bool { return strings.EqualFold(strings.TrimRight(a, "/"), strings.TrimRight(b, "/")) }
	return slices.DeleteFunc(slices.Clone(entries), func(e json.RawMessage) bool {
		var fields map[string]json.RawMessage
		var value string
		return json.Unmarshal(e, &fields) != nil || json.Unmarshal(fields[field], &value) != nil || !same(value, url)
	})
}

// addresses lists what the field holds, for hints.
func addresses(entries []json.RawMessage, field string) string {
	var all []string
	for _, e := range entries {
		var fields map[string]json.RawMessage
		var value string
		if json.Unmarshal(e, &fields) == nil && json.Unmarshal(fields[field], &value) == nil && value != "" && len(all) < 5 {
			all = append(all, clip(value))
		}
	}
	return strings.Join(all, ", ")
}

// trust puts together what certificates, logs and timestamps count for an
// authority: the certificate authority and its certificate transparency logs of
// keyless, the transparency logs of ctlog, the timestamp authorities of
// rfc3161timestamp; what these do not name is that of keyless, or the one that
// counts without a name.
func (p *parser) trust(path string, a authority, out *authorityRule) {
	before := len(decide.Errors(p.problems))
	if a.Keyless == nil && a.CTLog == nil && a.Timestamp == nil {
		return
	}
	m := material{MediaType: trust.MediaType01}
	var base material // of keyless, or the one without a name
	if a.Keyless != nil {
		base = p.certificates(path+".keyless", a, &m)
	}
	name := func(own string) string {
		if own == "" && a.Keyless != nil {
			return a.Keyless.TrustRootRef
		}
		return own
	}
	if a.CTLog != nil {
		from := p.parts(path+".ctlog", name(a.CTLog.TrustRootRef))
		m.Logs = p.only(path+".ctlog", "transparency log", from.Logs, "baseUrl", a.CTLog.URL, name(a.CTLog.TrustRootRef) != "")
		out.RequireLog = true
	} else {
		m.Logs = base.Logs
	}
	if a.Timestamp != nil {
		m.TSAs = p.parts(path+".rfc3161timestamp", name(a.Timestamp.TrustRootRef)).TSAs
		out.RequireTimestamp = true
	} else {
		m.TSAs = base.TSAs
	}
	if len(decide.Errors(p.problems)) == before {
		p.enough(path, a, m)
	}
	if len(decide.Errors(p.problems)) > before {
		return
	}
	document, err := json.Marshal(m)
	if err == nil {
		document, err = trust.Merge(document)
	}
	if err != nil {
		p.problem(path, "what is trusted does not fit together: "+clip(err.Error()), gatehouse.HintOf(err))
		return
	}
	out.Trust = document
}

// certificates fills in whose certificates count.
func (p *parser) certificates(path string, a authority, m *material) (base material) {
	k := a.Keyless
	if k.CACert == nil {
		base = p.parts(path, k.TrustRootRef)
		m.CTLogs = base.CTLogs
		m.CAs = p.only(path+".url", "certificate authority", base.CAs, "uri", k.URL, k.TrustRootRef != "")
		return base
	}
	if k.TrustRootRef != "" || len(p.outside.Trust) > 0 {
		base = p.parts(path, k.TrustRootRef)
		m.CTLogs = base.CTLogs
	}
	chain, field := p.chain(path+".ca-cert", k.CACert)
	if chain == "" {
		return base
	}
	document, err := trust.FromPEM(trust.PEM{CAs: []trust.CA{{Chain: chain, URL: k.URL}}})
	if err != nil {
		p.problem(field, clip(err.Error()), gatehouse.HintOf(err))
		return base
	}
	own, err := parts(document)
	if err != nil {
		p.problem(field, clip(err.Error()), gatehouse.HintOf(err))
	}
	m.CAs = own.CAs
	return base
}

func (p *parser) parts(path, name string) material {
	document := p.root(path, name)
	m, err := parts(document)
	if err != nil {
		p.problem(path, "the trusted root cannot be read: "+clip(err.Error()), gatehouse.HintOf(err))
	}
	return m
}

// only keeps the entries at an address. A trust root that a policy names counts as
// it is when it has no such address, which is told: policy-controller does not
// look at the address then.
func (p *parser) only(path, what string, entries []json.RawMessage, field, url string, named bool) []json.RawMessage {
	kept := at(entries, field, url)
	if len(kept) > 0 || len(entries) == 0 {
		return kept
	}
	message := fmt.Sprintf("the trust root has no %s at %s", what, clip(url))
	hint := "it has " + addresses(entries, field)
	if named {
		p.warn(path, message+"; all of those that it has count", hint)
		return entries
	}
	p.problem(path, message, hint+"; name the TrustRoot of that service with trustRootRef, or leave the address out")
	return nil
}

// enough says what an authority needs and has not: it would refuse everything, and
// the policy's author would look for the reason in signatures.
func (p *parser) enough(path string, a authority, m material) {
	if k := a.Keyless; k != nil {
		if len(m.CAs) == 0 {
			p.problem(path+".keyless", "the trust root has no certificate authority", "add certificateAuthorities to the TrustRoot, or give ca-cert")
		}
		if len(m.CTLogs) == 0 && !k.IgnoreSCT {
			p.problem(path+".keyless", "the trust root has no certificate transparency log, which certificates have to be in",
				"add ctLogs to the TrustRoot, or set insecureIgnoreSCT: true if the authority has no such log")
		}
		if len(m.Logs) == 0 && a.CTLog == nil && a.Timestamp == nil {
			p.problem(path+".keyless", "the trust root has no transparency log, so nothing proves when something was signed",
				"add tLogs to the TrustRoot, or rfc3161timestamp to the authority")
		}
	}
	if a.CTLog != nil && len(m.Logs) == 0 {
		p.problem(path+".ctlog", "the trust root has no transparency log", "add tLogs to the TrustRoot")
	}
	if a.Timestamp != nil && len(m.TSAs) == 0 {
		p.problem(path+".rfc3161timestamp", "the trust root has no timestamp authority", "add timestampAuthorities to the TrustRoot")
	}
}
