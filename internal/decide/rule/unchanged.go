package rule

import (
	"reflect"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// untouched returns the fields of those images that an update leaves as they are, with
// the container or volume of a Pod that holds them, or with the whole Pod template of
// anything else. A rule that judges objects is asked about updates for what it says of
// objects; of these images it says nothing again. Nil for other rules.
func (p *Policy) untouched(req gatehouse.Request) map[string]bool {
	if !p.JudgesObject() || req.Operation != "UPDATE" || len(req.OldObject) == 0 {
		return nil
	}
	obj, err := decoded(req)
	if err != nil || obj == nil {
		return nil
	}
	old, err := workload.Decode(req.OldObject)
	if err != nil {
		return nil
	}
	pods, err := workload.Pods(obj)
	if err != nil {
		return nil
	}
	before := podsBefore(req)
	same := map[string]bool{}
	for _, pod := range pods {
		was, ok := before[pod.Field]
		for _, f := range req.Images {
			if !ok || !strings.HasPrefix(f.Field, strings.TrimPrefix(pod.Field+".spec.", ".")) {
				continue
			}
			if pod.Field != "" {
				same[f.Field] = reflect.DeepEqual(was, pod.Object)
				continue
			}
			now := holder(obj, f.Field)
			same[f.Field] = now != nil && reflect.DeepEqual(now, holder(old, f.Field))
		}
	}
	return same
}
