package workload

import (
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
)

// Image is one image reference of an object, as written and where.
type Image struct {
	Written string // may be empty or malformed: the caller denies those
	Field   string // "spec.template.spec.containers[0].image"
}

// containerLists are the fields of a PodSpec that hold containers, in the
// order in which images are reported.
var containerLists = []string{"containers", "initContainers", "ephemeralContainers"}

// Images lists every image that obj would run or mount: containers, init
// containers, ephemeral containers and image volumes of a Pod or of the Pod
// templates that obj holds. paths ([ParsePath]) say where objects of its kind keep
// those beside the places that are known. An object of a kind without Pods has none.
// Errors: CodeInvalid where a field has not the type that Kubernetes gives it,
// CodeTooLarge beyond ImagesMax.
func Images(obj map[string]any, paths ...string) ([]Image, error) {
	templates, err := reader{paths}.templates(obj, "", "", 0)
	if err != nil {
		return nil, err
	}
	var images []Image
	for _, t := range templates {
		if images, err = t.images(images); err != nil {
			return nil, err
		}
	}
	return images, nil
}

func (t template) images(images []Image) (_ []Image, err error) {
	if t.single != "" {
		written, _ := t.spec["containers"].([]any)[0].(map[string]any)["image"].(string)
		return add(images, Image{Written: written, Field: t.single})
	}
	for _, list := range containerLists {
		if images, err = containerImages(images, t.spec, t.specPath, list); err != nil {
			return nil, err
		}
	}
	return volumeImages(images, t.spec, t.specPath)
}

func containerImages(images []Image, spec map[string]any, path, name string) ([]Image, error) {
	list, err := listAt(spec, name, path)
	if err != nil {
		return nil, err
	}
	for i, item := range list {
		at := fmt.Sprintf("%s%s[%d]", path, name, i)
		c, ok := item.(map[string]any)
		if !ok {
			return nil, wrongType(at, "an object", item)
		}
		written, err := textAt(c, "image", at+".")
		if err != nil {
			return nil, err
		}
		if images, err = add(images, Image{Written: written, Field: at + ".image"}); err != nil {
			return nil, err
		}
	}
	return images, nil
}

// volumeImages finds image volumes (KEP-4639): an artefact that is mounted is
// as dangerous as one that runs.
func volumeImages(images []Image, spec map[string]any, path string) ([]Image, error) {
	list, err := listAt(spec, "volumes", path)
	if err != nil {
		return nil, err
	}
	for i, item := range list {
		at := fmt.Sprintf("%svolumes[%d]", path, i)
		v, ok := item.(map[string]any)
		if !ok {
			return nil, wrongType(at, "an object", item)
		}
		source, err := mapAt(v, "image", at+".")
		if err != nil {
			return nil, err
		}
		if source == nil {
			continue
		}
		written, err := textAt(source, "reference", at+".image.")
		if err != nil {
			return nil, err
		}
		if images, err = add(images, Image{Written: written, Field: at + ".image.reference"}); err != nil {
			return nil, err
		}
	}
	return images, nil
}

func add(images []Image, im Image) ([]Image, error) {
	if len(images) >= ImagesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the object names more than %d images", ImagesMax)
	}
	return append(images, im), nil
}

// mapAt, listAt and textAt read an optional field: absent and null are the
// zero value, another type is an error.

func mapAt(m map[string]any, key, path string) (map[string]any, error) {
	switch v := m[key].(type) {
	case nil:
		return nil, nil
	case map[string]any:
		return v, nil
	default:
		return nil, wrongType(path+key, "an object", v)
	}
}

func listAt(m map[string]any, key, path string) ([]any, error) {
	switch v := m[key].(type) {
	case nil:
		return nil, nil
	case []any:
		return v, nil
	default:
		return nil, wrongType(path+key, "a list", v)
	}
}

func textAt(m map[string]any, key, path string) (string, error) {
	switch v := m[key].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	default:
		return "", wrongType(path+key, "a string", v)
	}
}

func wrongType(path, want string, got any) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "%s must be %s, it is %s", path, want, kindName(got))
}
