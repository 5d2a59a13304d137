package workload

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of path expressions.
const (
	pathLengthMax = 300 // bytes
	pathStepsMax  = 20
)

// foreignPaths says where custom resources that are in wide use keep what runs
// images, beside guessPaths. Their controllers make Pods, which are judged when
// they come; to judge the resource says no earlier, and to whoever wrote it.
var foreignPaths = map[string][]string{
	"argoproj.io/Workflow":                argo("spec."),
	"argoproj.io/WorkflowTemplate":        argo("spec."),
	"argoproj.io/ClusterWorkflowTemplate": argo("spec."),
	"argoproj.io/CronWorkflow":            argo("spec.workflowSpec."),
	"tekton.dev/Task":                     tekton("spec."),
	"tekton.dev/ClusterTask":              tekton("spec."),
	"tekton.dev/TaskRun":                  tekton("spec.taskSpec."),
	"tekton.dev/Pipeline":                 append(tekton("spec.tasks[*].taskSpec."), tekton("spec.finally[*].taskSpec.")...),
	"tekton.dev/PipelineRun":              append(tekton("spec.pipelineSpec.tasks[*].taskSpec."), tekton("spec.pipelineSpec.finally[*].taskSpec.")...),
	"serving.knative.dev/Revision":        {"spec"},
	"jobset.x-k8s.io/JobSet":              {"spec.replicatedJobs[*].template.spec.template"},
	"leaderworkerset.x-k8s.io/LeaderWorkerSet": {
		"spec.leaderWorkerTemplate.leaderTemplate", "spec.leaderWorkerTemplate.workerTemplate",
	},
	"kubeflow.org/TFJob":                    {"spec.tfReplicaSpecs.*.template"},
	"kubeflow.org/PyTorchJob":               {"spec.pytorchReplicaSpecs.*.template"},
	"kubeflow.org/MPIJob":                   {"spec.mpiReplicaSpecs.*.template"},
	"ray.io/RayCluster":                     ray("spec."),
	"ray.io/RayJob":                         ray("spec.rayClusterSpec."),
	"ray.io/RayService":                     ray("spec.rayClusterConfig."),
	"sparkoperator.k8s.io/SparkApplication": {"spec.image", "spec.driver.image", "spec.executor.image"},
	"kubevirt.io/VirtualMachine":            {"spec.template.spec.volumes[*].containerDisk.image"},
	"kubevirt.io/VirtualMachineInstance":    {"spec.volumes[*].containerDisk.image"},
}

func argo(at string) []string {
	t := at + "templates[*]."
	return []string{t + "container", t + "script", t + "initContainers[*]", t + "sidecars[*]", t + "containerSet.containers[*]"}
}

func tekton(at string) []string { return []string{at + "steps[*]", at + "sidecars[*]"} }

func ray(at string) []string {
	return []string{at + "headGroupSpec.template", at + "workerGroupSpecs[*].template"}
}

// Path says where objects of a kind keep what runs images: names divided by dots,
// with [*] behind a name for every item of a list and * for every value of an
// object. It leads to a Pod template, a Pod spec, a container or an image:
// "spec.template", "spec.steps[*]", "spec.groups.*.podSpec", "spec.driver.image".
type Path struct{ steps []string }

var stepPattern = regexp.MustCompile(`^(?:\*|[A-Za-z0-9_-]+(?:\[\*\])?)$`)

// ParsePath reads a path expression. Errors: CodeInvalid.
func ParsePath(s string) (Path, error) {
	steps := strings.Split(s, ".")
	if len(s) > pathLengthMax || len(steps) > pathStepsMax {
		return Path{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the path %q is longer than %d bytes or %d steps", clip(s), pathLengthMax, pathStepsMax)
	}
	for _, step := range steps {
		if !stepPattern.MatchString(step) {
			return Path{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the path %q has the step %q", clip(s), clip(step)).
				WithHint("write names divided by dots, [*] behind a name for each item of a list, * for each value of an object: spec.groups[*].template")
		}
	}
	var out Path
	for _, step := range steps {
		name, each := strings.CutSuffix(step, "[*]")
		out.steps = append(out.steps, name)
		if each {
			out.steps = append(out.steps, "[*]")
		}
	}
	return out, nil
}

// found is one value that a path leads to.
type found struct {
	at    string // "spec.steps[3]"
	value any
}

// find lists what p leads to in obj; what is not there, or of another type, is
// nothing. Errors: CodeTooLarge beyond ImagesMax.
func (p Path) find(obj map[string]any) ([]found, error) {
	at := []found{{"", obj}}
	for _, step := range p.steps {
		var next []found
		for _, f := range at {
			switch v := f.value.(type) {
			case []any:
				if step != "[*]" {
					continue
				}
				for i, item := range v {
					next = append(next, found{fmt.Sprintf("%s[%d]", f.at, i), item})
				}
			case map[string]any:
				keys := []string{step}
				if step == "*" {
					keys = slices.Sorted(maps.Keys(v))
				}
				for _, key := range keys {
					if child, ok := v[key]; ok && step != "[*]" {
						next = append(next, found{strings.TrimPrefix(f.at+"."+key, "."), child})
					}
				}
			}
		}
		if len(next) > ImagesMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "a path leads to more than %d places of the object", ImagesMax)
		}
		at = next
	}
	return at, nil
}

// foreign reads the templates that paths of a custom resource lead to.
func foreign(obj map[string]any, path string, expressions []string) ([]template, error) {
	var out []template
	for _, e := range expressions {
		p, err := ParsePath(e)
		if err != nil {
			return nil, err
		}
		places, err := p.find(obj)
		if err != nil {
			return nil, err
		}
		for _, place := range places {
			if t, ok := foreignTemplate(obj, path+place.at, place.value); ok {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

// foreignTemplate tells by its shape what a path has led to.
func foreignTemplate(owner map[string]any, at string, value any) (template, bool) {
	switch v := value.(type) {
	case string:
		if variable(v) {
			return template{}, false
		}
		return template{path: at + ".", owner: owner, spec: oneContainer(map[string]any{"name": "image", "image": v}), single: at}, true
	case map[string]any:
		if spec, ok := v["spec"].(map[string]any); ok && isSpec(spec) {
			meta, _ := v["metadata"].(map[string]any)
			return template{path: at + ".", specPath: at + ".spec.", owner: owner, meta: meta, spec: spec}, true
		}
		if isSpec(v) {
			return template{path: at + ".", specPath: at + ".", owner: owner, spec: v}, true
		}
		if image, ok := v["image"].(string); ok && !variable(image) {
			return template{path: at + ".", owner: owner, spec: oneContainer(v), single: at + ".image"}, true
		}
	}
	return template{}, false
}

func isSpec(m map[string]any) bool { _, ok := m["containers"].([]any); return ok }

func oneContainer(c map[string]any) map[string]any {
	return map[string]any{"containers": []any{c}}
}

// variable reports whether a reference is filled in later by the controller of
// the resource (Argo's {{…}}, Tekton's $(…)): the Pod will have it.
func variable(image string) bool {
	return image == "" || strings.Contains(image, "{{") || strings.Contains(image, "$(")
}
