package vex

import (
	"encoding/json"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// openVEX reads OpenVEX 0.0.1 to 0.2.0 (openvex/spec).
func (p *parser) openVEX(data []byte) error {
	var doc struct {
		ID          string `json:"@id"`
		Author      string `json:"author"`
		Timestamp   string `json:"timestamp"`
		LastUpdated string `json:"last_updated"`
		Statements  []struct {
			Vulnerability   ovVulnerability `json:"vulnerability"`
			Timestamp       string          `json:"timestamp"`
			LastUpdated     string          `json:"last_updated"`
			Products        []ovProduct     `json:"products"`
			Subcomponents   []ovProduct     `json:"subcomponents"` // before 0.2.0
			Status          string          `json:"status"`
			StatusNotes     string          `json:"status_notes"`
			Justification   string          `json:"justification"`
			ImpactStatement string          `json:"impact_statement"`
		} `json:"statements"`
	}
	if err := p.decode(data, &doc, "OpenVEX"); err != nil {
		return err
	}
	p.doc.ID, p.doc.Author = clip(doc.ID, 500), clip(doc.Author, 200)
	for _, s := range doc.Statements {
		st := Statement{
			IDs: s.Vulnerability.ids(), Status: s.Status, Justification: clip(s.Justification, 200), Impact: s.ImpactStatement,
			// A statement's time goes before the document's.
			At: newest(s.Timestamp, s.LastUpdated),
		}
		if st.Impact == "" && st.Status != NotAffected {
			st.Impact = s.StatusNotes
		}
		if st.At.IsZero() {
			st.At = newest(doc.Timestamp, doc.LastUpdated)
		}
		for _, product := range s.Products {
			parts := append(product.Subcomponents, s.Subcomponents...)
			if len(parts) > productsMax-p.products {
				return gatehouse.Errorf(gatehouse.CodeTooLarge, "the VEX document names more than %d products", productsMax)
			}
			p.products += len(parts)
			if out, ok := p.openVEXProduct(product, parts); ok {
				st.Products = append(st.Products, out)
			}
		}
		if err := p.add(st); err != nil {
			return err
		}
	}
	return nil
}

// openVEXProduct makes a product of what can be compared. ok is false where
// nothing can, or where the parts that it is limited to cannot.
func (p *parser) openVEXProduct(in ovProduct, parts []ovProduct) (out Product, ok bool) {
	for algorithm, value := range in.Hashes {
		if d, ok := digestOf(algorithm, value); ok {
			out.Digests = append(out.Digests, d)
		}
	}
	if d, err := gatehouse.ParseDigest(in.ID); err == nil {
		out.Digests = append(out.Digests, d)
	}
	out.PURL, ok = in.purl()
	if !ok && len(out.Digests) == 0 {
		p.warn("product %q is neither a package URL nor a digest", clip(in.ID, 120))
		return out, false
	}
	for _, part := range parts {
		switch u, ok := part.purl(); {
		case !ok:
			p.warn("subcomponent %q is no package URL", clip(part.ID, 120))
		case len(part.Hashes) > 0:
			p.warn("the hashes of subcomponent %q cannot be compared", clip(part.ID, 120))
		default:
			out.Parts = append(out.Parts, u)
		}
	}
	return out, len(parts) == 0 || len(out.Parts) > 0
}

// ovVulnerability is a text before 0.2.0, an object since.
type ovVulnerability struct {
	ID      string   `json:"@id"`
	Name    string   `json:"name"`
	Aliases []string `json:"aliases"`
}

func (v *ovVulnerability) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &v.Name)
	}
	type plain ovVulnerability
	return json.Unmarshal(b, (*plain)(v))
}

// ids lists the names of the vulnerability. Its @id is an IRI; only one that is
// a plain name counts as one.
func (v ovVulnerability) ids() []string {
	var out []string
	for _, id := range append([]string{v.Name}, v.Aliases...) {
		if id = strings.TrimSpace(id); id != "" {
			out = append(out, id)
		}
	}
	if len(out) == 0 && v.ID != "" && !strings.ContainsAny(v.ID, ":/") {
		out = append(out, v.ID)
	}
	return out
}

// ovProduct is a text before 0.2.0, an object since.
type ovProduct struct {
	ID            string            `json:"@id"`
	Hashes        map[string]string `json:"hashes"`
	Identifiers   map[string]string `json:"identifiers"`
	Subcomponents []ovProduct       `json:"subcomponents"`
}

func (c *ovProduct) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &c.ID)
	}
	type plain ovProduct
	return json.Unmarshal(b, (*plain)(c))
}

func (c ovProduct) purl() (gatehouse.PURL, bool) {
	for _, s := range []string{c.Identifiers["purl"], c.ID} {
		if u, err := gatehouse.ParsePURL(s); err == nil {
			return u, true
		}
	}
	return gatehouse.PURL{}, false
}
