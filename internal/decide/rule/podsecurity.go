package rule

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	psa "k8s.io/pod-security-admission/api"
	psapolicy "k8s.io/pod-security-admission/policy"
	kjson "sigs.k8s.io/json"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// podSecurity asks that Pods meet a level of Kubernetes' Pod Security Standards, in
// their latest version that is known here.
type podSecurity struct {
	level     psa.Level
	evaluator psapolicy.Evaluator
}

// levels are the levels that ask for anything.
var levels = []string{string(psa.LevelBaseline), string(psa.LevelRestricted)}

func newPodSecurity(level string) (*podSecurity, error) {
	e, err := psapolicy.NewEvaluator(psapolicy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	return &podSecurity{psa.Level(level), e}, nil
}

// judge looks at the Pod of a request, or at those that its object would create. One
// that an update leaves as it was is not looked at again. Reasons have the field of the
// Pod's spec.
func (s *podSecurity) judge(req gatehouse.Request) (reasons []gatehouse.Reason) {
	obj, err := decoded(req)
	if err != nil || obj == nil {
		return nil // a pull has no Pod, and what cannot be read is denied for that
	}
	pods, err := workload.Pods(obj, req.Templates...)
	if err != nil {
		return nil
	}
	before := podsBefore(req)
	for _, p := range pods {
		if old, ok := before[p.Field]; ok && samePod(old, p.Object) {
			continue
		}
		field := strings.TrimPrefix(p.Field+".spec", ".")
		deny := func(message, hint string) {
			reasons = append(reasons, gatehouse.Reason{Code: decide.CodePodSecurity, Field: field, Message: message, Hint: hint})
		}
		pod, err := typed(p.Object)
		if err != nil {
			deny("the Pod cannot be read as Kubernetes reads it: "+short(err.Error()), "")
			continue
		}
		for _, r := range s.evaluator.EvaluatePod(psa.LevelVersion{Level: s.level, Version: psa.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
			if r.Allowed {
				continue
			}
			message := fmt.Sprintf("the Pod does not meet the level %s of the Pod Security Standards: %s", s.level, r.ForbiddenReason)
			if r.ForbiddenDetail != "" {
				message += " (" + r.ForbiddenDetail + ")"
			}
			deny(message, "kubernetes.io/docs/concepts/security/pod-security-standards has what each level allows")
		}
	}
	return reasons
}

// podsBefore are the Pods of the object before an update, by field.
func podsBefore(req gatehouse.Request) map[string]map[string]any {
	if len(req.OldObject) == 0 {
		return nil
	}
	old, err := workload.Decode(req.OldObject)
	if err != nil {
		return nil
	}
	pods, err := workload.Pods(old)
	if err != nil {
		return nil
	}
	out := make(map[string]map[string]any, len(pods))
	for _, p := range pods {
		out[p.Field] = p.Object
	}
	return out
}

// samePod compares all that the standards look at: the spec, and annotations.
func samePod(a, b map[string]any) bool {
	annotations := func(pod map[string]any) any {
		meta, _ := pod["metadata"].(map[string]any)
		return meta["annotations"]
	}
	return reflect.DeepEqual(a["spec"], b["spec"]) && reflect.DeepEqual(annotations(a), annotations(b))
}

// typed reads a Pod with the API server's own decoder, which minds the case of names.
func typed(obj map[string]any) (*corev1.Pod, error) {
	b, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	var pod corev1.Pod
	if err := kjson.UnmarshalCaseSensitivePreserveInts(b, &pod); err != nil {
		return nil, err
	}
	return &pod, nil
}
