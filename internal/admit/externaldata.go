package admit

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
)

// Versions of Gatekeeper's external data, which are equal in all that is used here.
var externalVersions = []string{"externaldata.gatekeeper.sh/v1beta1", "externaldata.gatekeeper.sh/v1alpha1"}

// providerRequest is Gatekeeper's question.
type providerRequest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Request    struct {
		Keys []string `json:"keys"`
	} `json:"request"`
}

type providerResponse struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Response   struct {
		Idempotent  bool           `json:"idempotent"`
		Items       []providerItem `json:"items"`
		SystemError string         `json:"systemError,omitempty"`
	} `json:"response"`
}

// providerItem is the answer about one key, an image. What is denied has an Error,
// so that a template that looks at errors only does not let it pass.
type providerItem struct {
	Key   string `json:"key"`
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

// providerValue is what a template is told of an image that may run.
type providerValue struct {
	Verdict  gatehouse.Verdict  `json:"verdict"`
	Decision string             `json:"decision,omitempty"`
	Digest   gatehouse.Digest   `json:"digest,omitempty"`
	Reasons  []gatehouse.Reason `json:"reasons"`
}

const (
	// externalParallel bounds the images of one question that are judged at once.
	externalParallel = 4
	// externalReasons bounds the reasons of one image.
	externalReasons = 20
)

// ExternalData answers Gatekeeper's external_data about images, each by itself. With
// ?value=image the value is the reference with its digest, for mutations.
func (d *Doors) ExternalData(w http.ResponseWriter, r *http.Request) {
	var ask providerRequest
	size, ok := readDoor(w, r, &ask)
	if !ok {
		return
	}
	out := providerResponse{APIVersion: ask.APIVersion, Kind: "ProviderResponse"}
	out.Response.Idempotent = true
	out.Response.Items = []providerItem{}
	keys := ask.Request.Keys
	switch {
	case ask.Kind != "ProviderRequest" || !slices.Contains(externalVersions, ask.APIVersion):
		out.APIVersion = externalVersions[0]
		out.Response.SystemError = "the body is a " + clip(ask.Kind, 100) + " of " + clip(ask.APIVersion, 100) + ", not a ProviderRequest of " + externalVersions[0]
	case len(keys) > doorImagesMax:
		out.Response.SystemError = "the request has too many keys"
	default:
		ctx, cancel := context.WithTimeout(r.Context(), budget(r))
		defer cancel()
		out.Response.Items = d.items(ctx, keys, size, r.URL.Query().Get("value") == "image")
	}
	write(w, http.StatusOK, out)
}

// items judges each key.
func (d *Doors) items(ctx context.Context, keys []string, size int64, asImage bool) []providerItem {
	items := make([]providerItem, len(keys))
	slots := make(chan struct{}, externalParallel)
	var all sync.WaitGroup
	for i, key := range keys {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			items[i] = d.item(ctx, key, size/int64(len(keys)), asImage)
		})
	}
	all.Wait()
	return items
}

func (d *Doors) item(ctx context.Context, key string, size int64, asImage bool) providerItem {
	decision := gatehouse.Decision{Verdict: gatehouse.Allow, Reasons: []gatehouse.Reason{}}
	if d.Always.Image(key) {
		decision.Subject = digestOf(key)
	} else {
		req := imagesRequest("external-data", "", d.Now(), []string{key})
		req.Mutated = !asImage // the digest is about to be written otherwise
		decision = d.decide(ctx, req, size)
	}
	s := imageStatus(decision)
	if !s.Allowed {
		return providerItem{Key: key, Error: s.Reason}
	}
	if !asImage {
		return providerItem{Key: key, Value: providerValue{
			Verdict: decision.Verdict, Decision: decision.ID, Digest: decision.Subject, Reasons: decision.Reasons[:min(len(decision.Reasons), externalReasons)],
		}}
	}
	image, err := pinned(key, decision.Subject)
	if err != nil {
		return providerItem{Key: key, Error: err.Error()}
	}
	return providerItem{Key: key, Value: image}
}

// pinned is an image as it is written, with its digest.
func pinned(written string, digest gatehouse.Digest) (string, error) {
	ref, err := gatehouse.ParseRef(written)
	switch {
	case err != nil:
		return "", err
	case ref.Digest != "":
		return written, nil
	case digest == "":
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "no policy asked for the digest of %s", clip(written, 300))
	}
	return written + "@" + string(digest), nil
}

func digestOf(written string) gatehouse.Digest {
	ref, _ := gatehouse.ParseRef(written)
	return ref.Digest
}
