package vex

import (
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

type cdxComponent struct {
	Ref        string `json:"bom-ref"`
	Type       string `json:"type"`
	PURL       string `json:"purl"`
	Version    string `json:"version"`
	Components []cdxComponent
	Hashes     []struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	} `json:"hashes"`
}

// cycloneDX reads the vulnerabilities of CycloneDX 1.4 to 1.7 (JSON) that carry
// an analysis.
func (p *parser) cycloneDX(data []byte) error {
	var doc struct {
		Serial   string `json:"serialNumber"`
		Metadata struct {
			Timestamp string        `json:"timestamp"`
			Component *cdxComponent `json:"component"`
			Supplier  struct {
				Name string `json:"name"`
			} `json:"supplier"`
			Authors []struct {
				Name string `json:"name"`
			} `json:"authors"`
		} `json:"metadata"`
		Components      []cdxComponent `json:"components"`
		Vulnerabilities []struct {
			ID         string `json:"id"`
			References []struct {
				ID string `json:"id"`
			} `json:"references"`
			Analysis *struct {
				State         string `json:"state"`
				Justification string `json:"justification"`
				Detail        string `json:"detail"`
				FirstIssued   string `json:"firstIssued"`
				LastUpdated   string `json:"lastUpdated"`
			} `json:"analysis"`
			Affects []cdxAffects `json:"affects"`
		} `json:"vulnerabilities"`
	}
	if err := p.decode(data, &doc, "CycloneDX"); err != nil {
		return err
	}
	p.doc.ID, p.doc.Author = clip(doc.Serial, 500), clip(doc.Metadata.Supplier.Name, 200)
	if len(doc.Metadata.Authors) > 0 {
		p.doc.Author = clip(doc.Metadata.Authors[0].Name, 200)
	}
	byRef := map[string]cdxComponent{}
	if doc.Metadata.Component != nil {
		if err := collect(byRef, []cdxComponent{*doc.Metadata.Component}, 0); err != nil {
			return err
		}
	}
	if err := collect(byRef, doc.Components, 0); err != nil {
		return err
	}
	for _, v := range doc.Vulnerabilities {
		if v.Analysis == nil || v.Analysis.State == "" {
			continue // a plain list of vulnerabilities says nothing about them
		}
		s := Statement{
			Status: cdxStatus(v.Analysis.State), Justification: clip(v.Analysis.Justification, 200), Impact: v.Analysis.Detail,
			At: newest(v.Analysis.FirstIssued, v.Analysis.LastUpdated),
		}
		if s.At.IsZero() {
			s.At = newest(doc.Metadata.Timestamp)
		}
		if v.Analysis.State == "false_positive" && s.Justification == "" {
			s.Justification = "false_positive"
		}
		if v.ID != "" {
			s.IDs = append(s.IDs, v.ID)
		}
		for _, ref := range v.References {
			if ref.ID != "" {
				s.IDs = append(s.IDs, ref.ID)
			}
		}
		for _, a := range v.Affects {
			s.Products = append(s.Products, p.cdxProducts(a, byRef)...)
		}
		if err := p.add(s); err != nil {
			return err
		}
	}
	return nil
}

func collect(into map[string]cdxComponent, list []cdxComponent, depth int) error {
	if depth > depthMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the document nests components more than %d deep", depthMax)
	}
	for _, c := range list {
		if c.Ref != "" {
			into[c.Ref] = c
		}
		if err := collect(into, c.Components, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func cdxStatus(state string) string {
	switch state {
	case "not_affected", "false_positive":
		return NotAffected
	case "resolved", "resolved_with_pedigree":
		return Fixed
	case "in_triage":
		return UnderInvestigation
	case "exploitable":
		return Affected
	}
	return state // none that is known: add warns
}

type cdxAffects struct {
	Ref      string `json:"ref"`
	Versions []struct {
		Version string `json:"version"`
		Range   string `json:"range"`
		Status  string `json:"status"`
	} `json:"versions"`
}

// cdxProducts resolves a reference: to a component of the document, to a package
// URL, or to one at the end of a BOM-Link ("urn:cdx:SERIAL/1#pkg:npm/x@1").
// Versions limit it; what they say about each ("affected") is the state before
// the analysis, which is the document's answer.
func (p *parser) cdxProducts(a cdxAffects, byRef map[string]cdxComponent) []Product {
	var out Product
	c, known := byRef[a.Ref]
	purl := c.PURL
	if !known {
		purl = a.Ref
		if link, ok := strings.CutPrefix(a.Ref, "urn:cdx:"); ok {
			_, fragment, _ := strings.Cut(link, "#")
			if purl = fragment; !strings.HasPrefix(purl, "pkg:") || strings.HasPrefix(purl, "pkg%3A") {
				purl, _ = url.PathUnescape(fragment) // "" where it is not encoded so
			}
		}
	}
	u, err := gatehouse.ParsePURL(purl)
	if err == nil {
		out.PURL = u
	}
	if c.Type == "container" {
		for _, h := range c.Hashes {
			if d, ok := digestOf(h.Alg, h.Content); ok {
				out.Digests = append(out.Digests, d)
			}
		}
		if d, err := gatehouse.ParseDigest(c.Version); err == nil && !slices.Contains(out.Digests, d) {
			out.Digests = append(out.Digests, d)
		}
	}
	if err != nil && len(out.Digests) == 0 {
		p.warn("%q refers to nothing that can be compared", clip(a.Ref, 120))
		return nil
	}
	if len(a.Versions) == 0 {
		return []Product{out}
	}
	if len(a.Versions) > productsMax-p.products {
		p.warn("%q has too many versions", clip(a.Ref, 120))
		return nil
	}
	var list []Product
	for _, v := range a.Versions {
		if v.Version == "" || err != nil {
			p.warn("the version range %q of %q is not compared", clip(v.Range, 80), clip(a.Ref, 120))
			continue
		}
		one := out
		one.PURL.Version = v.Version
		list = append(list, one)
	}
	return list
}
