package sign

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Bundle is what [Attach] would store as a bundle.
func (k *Key) Bundle(ctx context.Context, image Image, annotations map[string]string, created time.Time) (Attachment, error) {
	s, err := NewSigner(k, Services{}, nil)
	if err != nil {
		return Attachment{}, err
	}
	made, err := s.Attach(ctx, nil, image, Options{Annotations: annotations})
	if err != nil {
		return Attachment{}, err
	}
	return made[0].Referrer(image, created)
}

// Legacy is what [Attach] would store under the tag scheme, the zero Attachment
// for nothing.
func (k *Key) Legacy(ctx context.Context, image Image, annotations map[string]string, existing *gatehouse.Manifest) (Attachment, error) {
	s, err := NewSigner(k, Services{}, nil)
	if err != nil {
		return Attachment{}, err
	}
	payload, err := simplePayload(image.Ref, "", annotations)
	if err != nil {
		return Attachment{}, err
	}
	_, layers, err := parseExisting(existing)
	if err != nil {
		return Attachment{}, err
	}
	if k.signed(layers, payload) {
		return Attachment{}, nil
	}
	m, err := s.legacySigned(ctx, payload)
	if err != nil {
		return Attachment{}, err
	}
	return m.legacy(image, existing, Options{})
}
