package running

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// Zero reports whether t is of no Pod.
func (t Template) Zero() bool { return t == Template{} }

// Digest names the template.
func (t Template) Digest() gatehouse.Digest { return gatehouse.DigestOf([]byte(t.text.Value())) }

// Request is the review that would come if a Pod of t were made now in a namespace, of
// the images that run: with pinned their digests stand beside the tags, as the mutating
// webhook writes them; without, tags stay tags, which policies that judge digests refuse.
// runs has the digests that the object does not show. A Pod that is too large to be judged
// comes as it is: the decision says so, as the webhook's would. Errors: CodeInvalid, never
// for what Read returned.
func (t Template) Request(namespace string, namespaceObject []byte, pinned bool) (req gatehouse.Request, runs Runs, err error) {
	var doc templateDoc
	if t.Zero() {
		return req, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "there is no template")
	}
	if err := json.Unmarshal([]byte(t.text.Value()), &doc); err != nil {
		return req, nil, gatehouse.Errorf(gatehouse.CodeInternal, "couldn't read a template: %w", err)
	}
	runs = Runs{}
	write := map[string]string{}
	obj, err := workload.Decode(doc.Object)
	if err != nil {
		doc.Runs = nil // whoever decides finds the same
	}
	for _, field := range slices.Sorted(maps.Keys(doc.Runs)) {
		digest := doc.Runs[field]
		image := workload.ImageAt(obj, field)
		ref, err := gatehouse.ParseRef(image)
		if err != nil {
			continue // the decision says so
		}
		if digest == unknownRuns {
			runs[ref.String()] = ""
			continue
		}
		if before, known := runs[ref.String()]; pinned || known && before != gatehouse.Digest(digest) {
			write[field] = pin(image, ref, digest)
			continue
		}
		runs[ref.String()] = gatehouse.Digest(digest)
	}
	meta, _ := obj["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	req = gatehouse.Request{
		UID: "running/" + namespace + "/" + t.Digest().Hex(), Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"},
		Resource: gatehouse.ObjectResource{Version: "v1", Resource: "pods"}, Operation: "CREATE",
		Name: name, Namespace: namespace, NamespaceObject: namespaceObject, Mutated: !pinned, Object: doc.Object,
	}
	if len(write) > 0 {
		if req.Object, err = json.Marshal(workload.SetImages(obj, write)); err != nil {
			return req, nil, err
		}
	}
	return req, runs, nil
}

// pin writes a digest behind a reference as it was written, with the tag that it means.
func pin(written string, ref gatehouse.Ref, digest string) string {
	if !strings.HasSuffix(written, ":"+ref.Tag) {
		written += ":" + ref.Tag
	}
	return written + "@" + digest
}

// Runs has the digests that run, by reference; an empty one runs and is not known.
type Runs map[string]gatehouse.Digest

// Digest is what runs where ref is written. ok is false where nothing has run yet.
// Errors: CodeUnavailable: it runs, and the node does not say its digest.
func (r Runs) Digest(ref gatehouse.Ref) (d gatehouse.Digest, ok bool, err error) {
	d, ok = r[ref.String()]
	if ok && d == "" {
		return "", true, gatehouse.Errorf(gatehouse.CodeUnavailable, "the node does not say which digest of %s runs", ref).
			WithDetail(DetailUnknownDigest).WithHint("name the image by its digest, or pull it from a registry")
	}
	return d, ok, nil
}

// DetailUnknownDigest marks the error for an image whose digest no node tells.
const DetailUnknownDigest = "RUNNING_DIGEST_UNKNOWN"

// Images lists the references of a decided request, each once, in order, at most max.
func Images(req gatehouse.Request, max int) []Image {
	out := []Image{}
	for _, f := range req.Images {
		one := Image{Name: f.Written, Digest: f.Image.Digest}
		if len(out) < max && !slices.Contains(out, one) {
			out = append(out, one)
		}
	}
	return out
}

// Image is an image that runs.
type Image struct {
	Name   string           `json:"image"` // as the Pod has it
	Digest gatehouse.Digest `json:"digest,omitempty"`
}
