package sign

import (
	"context"
	"encoding/json"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// Envelope signs a payload that is no statement about an image, as a DSSE v1 envelope
// in JSON. The type is signed, too, so that it passes for nothing else.
func (k *Key) Envelope(ctx context.Context, payloadType string, payload []byte) ([]byte, error) {
	type signature struct {
		KeyID string `json:"keyid"`
		Sig   []byte `json:"sig"`
	}
	sig, err := k.sign(ctx, dsse.PAE(payloadType, payload))
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		PayloadType string      `json:"payloadType"`
		Payload     []byte      `json:"payload"`
		Signatures  []signature `json:"signatures"`
	}{payloadType, payload, []signature{{string(k.ID()), sig}}})
}
