package vex

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

type (
	csafBranch struct {
		Branches []csafBranch `json:"branches"`
		Product  *csafProduct `json:"product"`
	}
	csafProduct struct {
		ID     string `json:"product_id"`
		Helper struct {
			PURL   string `json:"purl"`
			CPE    string `json:"cpe"`
			Hashes []struct {
				FileHashes []struct {
					Algorithm string `json:"algorithm"`
					Value     string `json:"value"`
				} `json:"file_hashes"`
			} `json:"hashes"`
		} `json:"product_identification_helper"`
	}
	csafRelationship struct {
		Full     csafProduct `json:"full_product_name"`
		Product  string      `json:"product_reference"`
		InsideOf string      `json:"relates_to_product_reference"`
	}
	csafText struct {
		Category string   `json:"category"`
		Details  string   `json:"details"`
		Products []string `json:"product_ids"`
		Groups   []string `json:"group_ids"`
	}
	csafFlag struct {
		Label    string   `json:"label"`
		Products []string `json:"product_ids"`
		Groups   []string `json:"group_ids"`
	}
	csafGroup struct {
		ID       string   `json:"group_id"`
		Products []string `json:"product_ids"`
	}
	csafVulnerability struct {
		CVE string `json:"cve"`
		IDs []struct {
			Text string `json:"text"`
		} `json:"ids"`
		Flags   []csafFlag          `json:"flags"`
		Threats []csafText          `json:"threats"`
		Status  map[string][]string `json:"product_status"`
	}
)

// csaf reads the product tree and the statuses of CSAF 2.0, of whatever profile.
func (p *parser) csaf(data []byte) error {
	var doc struct {
		Document struct {
			Version   string `json:"csaf_version"`
			Publisher struct {
				Name string `json:"name"`
			} `json:"publisher"`
			Tracking struct {
				ID      string `json:"id"`
				Current string `json:"current_release_date"`
			} `json:"tracking"`
		} `json:"document"`
		Tree struct {
			Branches      []csafBranch       `json:"branches"`
			Names         []csafProduct      `json:"full_product_names"`
			Groups        []csafGroup        `json:"product_groups"`
			Relationships []csafRelationship `json:"relationships"`
		} `json:"product_tree"`
		Vulnerabilities []csafVulnerability `json:"vulnerabilities"`
	}
	if err := p.decode(data, &doc, "CSAF"); err != nil {
		return err
	}
	if doc.Document.Version != "2.0" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "CSAF version %q is not read", clip(doc.Document.Version, 40)).WithHint("2.0 is")
	}
	p.doc.ID, p.doc.Author = clip(doc.Document.Tracking.ID, 500), clip(doc.Document.Publisher.Name, 200)
	tree := csafTree{plain: map[string]csafProduct{}, inside: map[string]csafRelationship{}, groups: map[string][]string{}}
	for _, name := range doc.Tree.Names {
		tree.plain[name.ID] = name
	}
	if err := tree.walk(doc.Tree.Branches, 0); err != nil {
		return err
	}
	for _, r := range doc.Tree.Relationships {
		tree.inside[r.Full.ID] = r
	}
	for _, g := range doc.Tree.Groups {
		tree.groups[g.ID] = g.Products
	}
	at := newest(doc.Document.Tracking.Current)
	for _, v := range doc.Vulnerabilities {
		why, err := p.csafReasons(v, tree)
		if err != nil {
			return err
		}
		for _, s := range csafStatuses {
			for _, st := range p.csafStatements(v, s.key, s.status, tree, why) {
				st.At = at
				if err := p.add(st); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// csafStatuses in the order in which they are read: what is said later in a
// document of one date goes before, so that a contradiction does not suppress.
var csafStatuses = []struct{ key, status string }{
	{"known_not_affected", NotAffected},
	{"first_fixed", Fixed}, {"fixed", Fixed},
	{"under_investigation", UnderInvestigation},
	{"first_affected", Affected}, {"last_affected", Affected}, {"known_affected", Affected},
}

// csafReasons are the reasons that a document gives for one vulnerability, by
// product.
type csafReasons struct{ flags, threats map[string]string }

func (p *parser) csafReasons(v csafVulnerability, tree csafTree) (csafReasons, error) {
	why := csafReasons{map[string]string{}, map[string]string{}}
	for _, f := range v.Flags {
		ids, err := p.csafMembers(f.Products, f.Groups, tree)
		if err != nil {
			return why, err
		}
		for _, id := range ids {
			why.flags[id] = clip(f.Label, 200)
		}
	}
	for _, t := range v.Threats {
		if t.Category != "impact" {
			continue
		}
		ids, err := p.csafMembers(t.Products, t.Groups, tree)
		if err != nil {
			return why, err
		}
		for _, id := range ids {
			why.threats[id] = t.Details
		}
	}
	return why, nil
}

// csafMembers lists products together with those of groups. A short document can
// name a large group many times, so what groups add is bounded.
func (p *parser) csafMembers(products, groups []string, tree csafTree) ([]string, error) {
	out := products[:len(products):len(products)]
	for _, g := range groups {
		members := tree.groups[g]
		if p.grouped += len(members); p.grouped > productsMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the groups of the VEX document come to more than %d products", productsMax)
		}
		out = append(out, members...)
	}
	return out, nil
}

// csafStatements makes one statement per reason: products of one status may have
// different ones.
func (p *parser) csafStatements(v csafVulnerability, key, status string, tree csafTree, why csafReasons) []Statement {
	ids := v.Status[key]
	if len(ids) == 0 {
		return nil
	}
	base := Statement{Status: status}
	if v.CVE != "" {
		base.IDs = append(base.IDs, v.CVE)
	}
	for _, id := range v.IDs {
		if id.Text != "" {
			base.IDs = append(base.IDs, id.Text)
		}
	}
	type reason struct{ flag, threat string }
	var order []reason
	byReason := map[reason][]Product{}
	for _, id := range ids {
		product, ok := tree.product(id, 0)
		if !ok {
			p.warn("product %q can be compared with nothing", clip(id, 120))
			continue
		}
		r := reason{threat: why.threats[id]}
		if status == NotAffected { // what flags are for
			r.flag = why.flags[id]
		}
		if byReason[r] == nil {
			order = append(order, r)
		}
		byReason[r] = append(byReason[r], product)
	}
	var out []Statement
	for _, r := range order {
		s := base
		s.Justification, s.Impact, s.Products = r.flag, r.threat, byReason[r]
		out = append(out, s)
	}
	return out
}

// csafTree finds products by id.
type csafTree struct {
	plain  map[string]csafProduct
	inside map[string]csafRelationship
	groups map[string][]string
}

func (t csafTree) walk(branches []csafBranch, depth int) error {
	if depth > depthMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the document nests branches more than %d deep", depthMax)
	}
	for _, b := range branches {
		if b.Product != nil {
			t.plain[b.Product.ID] = *b.Product
		}
		if err := t.walk(b.Branches, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// product resolves an id. Of "package of platform" both sides must be
// comparable: the flaw may well be in the same package elsewhere. So must every
// limit that a part brings along: on another platform, to files with a hash.
func (t csafTree) product(id string, depth int) (Product, bool) {
	if depth > layersMax { // packages of modules of platforms; circles end here
		return Product{}, false
	}
	if r, ok := t.inside[id]; ok {
		part, ok := t.product(r.Product, depth+1)
		if !ok || part.PURL.Type == "" || part.On != nil {
			return Product{}, false
		}
		whole, ok := t.product(r.InsideOf, depth+1)
		if !ok {
			return Product{}, false
		}
		if whole.PURL.Type == "" && len(whole.Digests) == 0 { // a platform
			part.On = whole.On
			return part, whole.On != nil
		}
		if len(whole.Parts) > 0 || len(part.Parts) > 0 || len(part.Digests) > 0 {
			return Product{}, false
		}
		whole.Parts = []gatehouse.PURL{part.PURL}
		return whole, true
	}
	in, ok := t.plain[id]
	if !ok {
		return Product{}, false
	}
	var out Product
	if u, err := gatehouse.ParsePURL(in.Helper.PURL); err == nil {
		out.PURL = u
	}
	for _, h := range in.Helper.Hashes {
		for _, f := range h.FileHashes {
			if d, ok := digestOf(f.Algorithm, f.Value); ok {
				out.Digests = append(out.Digests, d)
			}
		}
	}
	if out.PURL.Type == "" && len(out.Digests) == 0 {
		d, ok := platform(in.Helper.CPE)
		out.On = &d
		return out, ok
	}
	return out, true
}

// platforms are the distributions that CPE names in its own way, by vendor and
// product.
var platforms = map[string]string{
	"redhat:enterprise_linux": "rhel", "redhat:rhel_eus": "rhel", "fedoraproject:fedora": "fedora",
	"suse:sles": "sles", "suse:linux_enterprise_server": "sles", "opensuse:leap": "opensuse-leap", "opensuse:tumbleweed": "opensuse-tumbleweed",
	"debian:debian_linux": "debian", "canonical:ubuntu_linux": "ubuntu", "alpinelinux:alpine_linux": "alpine",
	"almalinux:almalinux": "almalinux", "rocky:rocky": "rocky", "resf:rocky_linux": "rocky", "oracle:linux": "ol",
	"amazon:linux": "amzn", "amazon:linux_2": "amzn",
}

// platform reads the distribution of a CPE, of version 2.2 or 2.3.
func platform(cpe string) (gatehouse.Distro, bool) {
	rest, ok := strings.CutPrefix(cpe, "cpe:2.3:")
	if !ok {
		if rest, ok = strings.CutPrefix(cpe, "cpe:/"); !ok {
			return gatehouse.Distro{}, false
		}
	}
	parts := strings.Split(rest, ":") // part, vendor, product, version, update, …
	if len(parts) < 4 || parts[0] != "o" && parts[0] != "a" {
		return gatehouse.Distro{}, false
	}
	id, ok := platforms[parts[1]+":"+parts[2]]
	version := parts[3]
	if !ok || version == "" || version == "*" || version == "-" {
		return gatehouse.Distro{}, false
	}
	if len(parts) > 4 && id == "sles" && strings.HasPrefix(parts[4], "sp") {
		version += "." + parts[4][2:]
	}
	return gatehouse.Distro{ID: id, VersionID: version}, true
}
