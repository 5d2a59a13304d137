package admit

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Doors answer others than webhooks about images, by the same policies: the API
// server's ImagePolicyWebhook, Gatekeeper's external data, and through the first one
// the verifier and the credential provider of nodes. They see images and no objects.
// Use [NewDoors].
type Doors struct {
	DoorOptions
}

// DoorOptions are what Doors stand on.
type DoorOptions struct {
	// Decider judges requests that have Images and no Object.
	Decider Decider
	// Always is what is let through unasked.
	Always Always
	Now    func() time.Time // nil: the machine's clock
	Room   *Room            // nil: one of its own
}

// doorImagesMax bounds the images of one question.
const doorImagesMax = 500

// NewDoors makes Doors.
func NewDoors(o DoorOptions) *Doors {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Room == nil {
		o.Room = NewRoom()
	}
	return &Doors{DoorOptions: o}
}

// Register adds the routes of the doors to mux.
func (d *Doors) Register(mux *http.ServeMux) {
	mux.HandleFunc("/image-review", d.ImageReview)
	mux.HandleFunc("/external-data", d.ExternalData)
}

// Always is what runs whatever the policies say, and also while nobody can be asked:
// what a node and a cluster need before Gatehouse can run. It is a static list, and no
// policy: digests of content, and names of namespaces.
type Always struct {
	Digests    []gatehouse.Digest
	Namespaces []string
}

// Image reports whether an image is let through: it is written with a digest that is
// on the list. Whatever its name is, that is what it contains.
func (a Always) Image(written string) bool {
	ref, err := gatehouse.ParseRef(written)
	return err == nil && ref.Digest != "" && slices.Contains(a.Digests, ref.Digest)
}

// Namespace reports whether all that a namespace runs is let through.
func (a Always) Namespace(name string) bool {
	return name != "" && slices.Contains(a.Namespaces, name)
}

// PauseDigests are the images of the sandbox that every Pod starts with
// (registry.k8s.io/pause 3.9, 3.10 and 3.10.1). A node that has to ask about them
// starts nothing at all.
func PauseDigests() []gatehouse.Digest {
	return []gatehouse.Digest{
		"sha256:7031c1b283388d2c2e09b57badb803c05ebed362dc88d84b480cc47f72a21097",
		"sha256:ee6521f290b2168b6e0935a181d4cff9be1ac3f505666ef0e3c98fae8199917a",
		"sha256:278fb9dbcca9518083ad1e11276933a2e96f23de604a3a08cc3c80002767d24c",
	}
}

// imagesRequest is a question about images without an object. What is asked about is
// pulled as it is written: a tag that may move is denied as the webhook denies it, where a
// policy judges by digest.
func imagesRequest(uid, namespace string, now time.Time, images []string) gatehouse.Request {
	req := gatehouse.Request{UID: uid, Operation: "CREATE", Namespace: namespace, Now: now, Mutated: true}
	for i, written := range images {
		ref, _ := gatehouse.ParseRef(written) // the decision denies what is none
		req.Images = append(req.Images, gatehouse.ImageFacts{Written: written, Field: fmt.Sprintf("images[%d]", i), Image: ref})
	}
	return req
}

// decide never hangs and never panics, whatever the Decider does, as that of Handler.
func (d *Doors) decide(ctx context.Context, req gatehouse.Request, size int64) gatehouse.Decision {
	h := Handler{Options: Options{Decider: d.Decider, Room: d.Room}}
	return h.decide(ctx, req, size)
}

// readDoor reads a question, or answers what it is instead.
func readDoor(w http.ResponseWriter, r *http.Request, into any) (size int64, ok bool) {
	body, code, err := read(w, r)
	if err == nil {
		if err = Exactly(body, into); err != nil {
			code, err = http.StatusBadRequest, gatehouse.Errorf(gatehouse.CodeInvalid, "the body is not what is expected here: %w", err)
		}
	}
	if err != nil {
		refuse(w, code, err)
		return 0, false
	}
	return int64(len(body)), true
}
