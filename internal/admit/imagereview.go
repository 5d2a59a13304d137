package admit

import (
	"context"
	"net/http"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// ImageReviewVersion is the only version of ImageReview that there is.
const ImageReviewVersion = "imagepolicy.k8s.io/v1alpha1"

// ImageReviewUID is the UID of requests that are made of an ImageReview, which has none.
const ImageReviewUID = "image-review"

// ImageReview is the question of the API server's ImagePolicyWebhook, and its answer.
// Annotations of the Pod, which the API server sends as a way round, are not read.
type ImageReview struct {
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	Spec       *ImageReviewSpec   `json:"spec,omitempty"`
	Status     *ImageReviewStatus `json:"status,omitempty"`
}

// ImageReviewSpec is the question.
type ImageReviewSpec struct {
	Containers []ImageReviewContainer `json:"containers,omitempty"`
	Namespace  string                 `json:"namespace,omitempty"`
}

// ImageReviewContainer is one container of the Pod.
type ImageReviewContainer struct {
	Image string `json:"image,omitempty"`
}

// ImageReviewStatus is the answer.
type ImageReviewStatus struct {
	Allowed          bool              `json:"allowed"`
	Reason           string            `json:"reason,omitempty"`
	AuditAnnotations map[string]string `json:"auditAnnotations,omitempty"`
}

// NewImageReview is a question about images.
func NewImageReview(namespace string, images ...string) ImageReview {
	r := ImageReview{APIVersion: ImageReviewVersion, Kind: "ImageReview", Spec: &ImageReviewSpec{Namespace: namespace}}
	for _, i := range images {
		r.Spec.Containers = append(r.Spec.Containers, ImageReviewContainer{i})
	}
	return r
}

// Answered is the answer to a review.
func Answered(s ImageReviewStatus) ImageReview {
	return ImageReview{APIVersion: ImageReviewVersion, Kind: "ImageReview", Status: &s}
}

// images checks a question and lists its images. Errors: CodeInvalid, CodeTooLarge.
func (r ImageReview) images() ([]string, error) {
	switch {
	case r.Kind != "ImageReview" || r.APIVersion != ImageReviewVersion:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the body is a %q of %q, not an ImageReview of %s", clip(r.Kind, 100), clip(r.APIVersion, 100), ImageReviewVersion)
	case r.Spec == nil:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the ImageReview has no spec")
	case len(r.Spec.Containers) > doorImagesMax:
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the ImageReview names %d images, %d at most", len(r.Spec.Containers), doorImagesMax)
	}
	images := make([]string, len(r.Spec.Containers))
	for i, c := range r.Spec.Containers {
		images[i] = c.Image
	}
	return images, nil
}

// Unasked answers a review as far as the list alone does: everything, or the images
// that are left to ask about.
func (a Always) Unasked(r ImageReview) (done *ImageReviewStatus, left []string, err error) {
	images, err := r.images()
	if err != nil {
		return nil, nil, err
	}
	if a.Namespace(r.Spec.Namespace) {
		return &ImageReviewStatus{Allowed: true, AuditAnnotations: map[string]string{"always": "namespace"}}, nil, nil
	}
	for _, i := range images {
		if !a.Image(i) {
			left = append(left, i)
		}
	}
	if len(left) == 0 && len(images) > 0 {
		return &ImageReviewStatus{Allowed: true, AuditAnnotations: map[string]string{"always": "digest"}}, nil, nil
	}
	return nil, left, nil
}

// ImageReview answers the ImagePolicyWebhook of an API server, which asks about the
// images of a Pod.
func (d *Doors) ImageReview(w http.ResponseWriter, r *http.Request) {
	var review ImageReview
	size, ok := readDoor(w, r, &review)
	if !ok {
		return
	}
	done, left, err := d.Always.Unasked(review)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if done == nil {
		ctx, cancel := context.WithTimeout(r.Context(), budget(r))
		defer cancel()
		out := imageStatus(d.decide(ctx, imagesRequest(ImageReviewUID, review.Spec.Namespace, d.Now(), left), size))
		done = &out
	}
	write(w, http.StatusOK, Answered(*done))
}

// imageStatus puts a decision into the words of an ImageReview. There are no warnings in
// them: they stand with the decision.
func imageStatus(d gatehouse.Decision) ImageReviewStatus {
	r := respond("", d)
	s := ImageReviewStatus{Allowed: r.Allowed, AuditAnnotations: r.AuditAnnotations}
	if r.Status != nil {
		s.Reason = r.Status.Message
	} else {
		s.Reason = strings.Join(r.Warnings, "; ")
	}
	return s
}
