package provenance

import (
	"encoding/json"

	"github.com/gatehouse-dev/gatehouse"
)

// Link is what one step of a supply chain did (in-toto specification, 4.4), in the
// form of a predicate.
type Link struct {
	Name    string
	Command []string
	// Materials were there before, Products after: digests by algorithm, by path.
	Materials, Products map[string]map[string]string
}

// link reads a link of either version: v1 keeps artifacts by path, v0.3 of the
// attestation framework in lists of resource descriptors.
func link(b []byte) (*Link, error) {
	var p struct {
		Name      string          `json:"name"`
		Command   []string        `json:"command"`
		Materials json.RawMessage `json:"materials"`
		Products  json.RawMessage `json:"products"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, unreadable("the link", err)
	}
	if p.Name == "" {
		return nil, invalid("the link does not name its step")
	}
	l := &Link{Name: clip(p.Name), Command: p.Command}
	var err error
	if l.Materials, err = artifacts(p.Materials); err != nil {
		return nil, err
	}
	l.Products, err = artifacts(p.Products)
	return l, err
}

func artifacts(raw json.RawMessage) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	if len(raw) == 0 || string(raw) == "null" {
		return out, nil
	}
	if json.Unmarshal(raw, &out) != nil {
		var list []Subject
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, unreadable("the artifacts of the link", err)
		}
		clear(out)
		for _, s := range list {
			out[s.Name] = s.Digest
		}
	}
	if len(out) > artifactsMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the link lists %d artifacts, %d at most", len(out), artifactsMax)
	}
	return out, nil
}
