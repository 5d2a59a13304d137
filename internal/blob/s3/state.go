package s3

import (
	"bytes"
	"encoding/json"

	"github.com/gatehouse-dev/gatehouse"
)

// state is what the last sitting leaves to the next one, or to Publish.
type state struct {
	Version int   `json:"v"` // 1
	Size    int64 `json:"size"`
	// Upload is the multipart upload; empty: the object itself holds all bytes.
	Upload string `json:"upload,omitempty"`
	// Token marks the object, or the object that the upload becomes.
	Token string `json:"token"`
	// Parts are the ETags of the full parts, from part 1.
	Parts []string `json:"parts,omitempty"`
	// Tail is the id of the tail that holds the bytes behind the parts.
	Tail string `json:"tail,omitempty"`
	// Sum is the SHA-256 of the bytes behind the parts.
	Sum string `json:"sum,omitempty"`
	// Was is the tail that Tail took over from: nobody needs it any more once
	// this state is in the row.
	Was string `json:"was,omitempty"`
}

// rest is the number of bytes behind the full parts.
func (s *state) rest() int64 { return s.Size - int64(len(s.Parts))*PartSize }

func (s *state) encode() ([]byte, error) {
	s.Version = 1
	return json.Marshal(s)
}

// decodeState reads a state from our own row: an error is our own fault.
func decodeState(raw []byte) (*state, error) {
	s := &state{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(s)
	if err == nil {
		rest := s.rest()
		switch small := s.Upload == ""; {
		case s.Version != 1, s.Size < 0, s.Token == "", len(s.Parts) > partsMax, rest < 0:
		case small && (len(s.Parts) > 0 || s.Tail != "" || rest > PartSize || s.Sum == ""):
		case !small && (rest >= PartSize || (s.Tail == "") != (rest == 0) || (s.Sum == "") != (rest == 0)):
		default:
			return s, nil
		}
	}
	return nil, gatehouse.Errorf(gatehouse.CodeInternal, "the stored state of an upload cannot be read")
}
