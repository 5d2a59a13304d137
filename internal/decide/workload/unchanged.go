package workload

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Unchanged returns the fields of those images of obj that the update from old
// leaves as they are: the whole container or volume of a Pod, the whole Pod template
// of anything else. Nothing new starts for them, or Pods come that are judged
// themselves. What cannot be read in old has changed.
func Unchanged(old, obj map[string]any, paths ...string) map[string]bool {
	before, err := reader{paths}.templates(old, "", "", 0)
	if err != nil {
		return nil
	}
	now, err := reader{paths}.templates(obj, "", "", 0)
	if err != nil {
		return nil
	}
	was := map[string]template{}
	for _, t := range before {
		was[t.path+t.single] = t
	}
	same := map[string]bool{}
	for _, t := range now {
		o, ok := was[t.path+t.single]
		if !ok || t.isPod != o.isPod {
			continue
		}
		if t.isPod {
			t.sameEntries(o, same)
			continue
		}
		if !reflect.DeepEqual(o.meta, t.meta) || !reflect.DeepEqual(o.spec, t.spec) {
			continue
		}
		images, err := t.images(nil)
		if err != nil {
			return nil
		}
		for _, im := range images {
			same[im.Field] = true
		}
	}
	return same
}

// sameEntries compares a Pod container by container: the others may change while
// this one runs on.
func (t template) sameEntries(o template, same map[string]bool) {
	for _, list := range append([]string{"volumes"}, containerLists...) {
		before, _ := o.spec[list].([]any)
		now, _ := t.spec[list].([]any)
		field := ".image"
		if list == "volumes" {
			field = ".image.reference"
		}
		for i := range min(len(before), len(now)) {
			if reflect.DeepEqual(before[i], now[i]) {
				same[fmt.Sprintf("%s%s[%d]%s", t.specPath, list, i, field)] = true
			}
		}
	}
}

// IsPod reports whether obj is a Pod itself, not what makes Pods.
func IsPod(obj map[string]any) bool {
	k := Kind(obj)
	return k.Group == "" && k.Kind == "Pod"
}

// mirrorAnnotation marks the reflection of a static Pod in the API.
const mirrorAnnotation = "kubernetes.io/config.mirror"

// Mirror returns the node whose kubelet shows a static Pod by obj, "" if obj claims
// no such thing. Whether it is true depends on who creates it.
func Mirror(obj map[string]any) (node string) {
	meta, _ := obj["metadata"].(map[string]any)
	annotations, _ := meta["annotations"].(map[string]any)
	hash, _ := annotations[mirrorAnnotation].(string)
	spec, _ := obj["spec"].(map[string]any)
	if !IsPod(obj) || hash == "" {
		return ""
	}
	node, _ = spec["nodeName"].(string)
	return node
}

// Pointer turns the field of an image into a JSON Pointer (RFC 6901).
func Pointer(field string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1", "[", "/", "]", "", ".", "/")
	return "/" + escape.Replace(field)
}

// ImageAt returns the image at a field of obj, "" where there is none.
func ImageAt(obj map[string]any, field string) string {
	var at any = obj
	for _, step := range strings.Split(Pointer(field), "/")[1:] {
		switch v := at.(type) {
		case map[string]any:
			at = v[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(v) {
				return ""
			}
			at = v[i]
		default:
			return ""
		}
	}
	image, _ := at.(string)
	return image
}

// SetImages returns obj with other images at some fields. Only what leads there is
// copied: the rest is shared with obj.
func SetImages(obj map[string]any, images map[string]string) map[string]any {
	out := obj
	for field, image := range images {
		steps := strings.Split(Pointer(field), "/")[1:]
		if v, ok := set(out, steps, image).(map[string]any); ok {
			out = v
		}
	}
	return out
}

func set(v any, steps []string, image string) any {
	if len(steps) == 0 {
		return image
	}
	switch v := v.(type) {
	case map[string]any:
		child, ok := v[steps[0]]
		if !ok {
			return v
		}
		out := maps.Clone(v)
		out[steps[0]] = set(child, steps[1:], image)
		return out
	case []any:
		i, err := strconv.Atoi(steps[0])
		if err != nil || i < 0 || i >= len(v) {
			return v
		}
		out := slices.Clone(v)
		out[i] = set(v[i], steps[1:], image)
		return out
	}
	return v
}
