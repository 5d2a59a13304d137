package rule

import "github.com/gatehouse-dev/gatehouse"

// untouched returns the fields of those images that an update leaves as they are. A
// rule that judges objects is asked about updates for what it says of objects; of
// these images it says nothing again. Nil for other rules.
func (p *Policy) untouched(req gatehouse.Request) map[string]bool {
	if !p.JudgesObject() {
		return nil
	}
	same := map[string]bool{}
	for _, f := range req.Images {
		same[f.Field] = f.Unchanged
	}
	return same
}
