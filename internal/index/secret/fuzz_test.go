package secret_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/secret"
)

// FuzzPiece: whatever the bytes, the scanner comes back, shows no run of twelve
// bytes that random parts of the samples hold, and finds in pieces what it finds
// at once.
func FuzzPiece(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s.path, []byte(s.content), 100)
	}
	f.Add("etc/shadow", []byte("root::0:::"), 1)
	for _, s := range samples(f)[:5] {
		f.Add(s.path, utf16Of(strings.Repeat("x = 1\n", 2000)+s.content, binary.LittleEndian), 20_001)
	}
	f.Fuzz(func(t *testing.T, path string, b []byte, cut int) {
		whole := scan(path, b)
		for _, f := range whole {
			if f.ID == "" || f.Location == nil || len(f.Location.Excerpt) > 4096 || f.Location.EndLine < f.Location.StartLine {
				t.Fatalf("%+v %+v", f, f.Location)
			}
			if f.Location.StartLine > bytes.Count(b, []byte("\n"))+1 {
				t.Fatalf("line %d", f.Location.StartLine)
			}
		}
		if len(b) == 0 {
			return
		}
		s := secret.NewScanner()
		if !s.Begin(path) {
			return
		}
		var pieces []gatehouse.Finding
		emit := func(f gatehouse.Finding) { pieces = append(pieces, f) }
		at := max(1, min(len(b), cut))
		if at < len(b) && at > 8000 && at > secret.Ahead+secret.Back {
			if s.Piece(b[:at], 0, false, emit) {
				keep := secret.Ahead + secret.Back
				s.Piece(b[at-keep:], keep, true, emit)
			}
			if len(pieces) != len(whole) {
				t.Fatalf("%d findings in pieces, %d at once", len(pieces), len(whole))
			}
		}
	})
}

// FuzzConfig: no configuration makes it fail.
func FuzzConfig(f *testing.F) {
	f.Add("API_KEY=x", "label", "RUN |1 A=b /bin/sh -c x")
	f.Fuzz(func(t *testing.T, env, label, step string) {
		var cfg gatehouse.ImageConfig
		cfg.Config.Env = []string{env}
		cfg.Config.Labels = map[string]string{label: env}
		cfg.History = append(cfg.History, struct {
			CreatedBy  string `json:"created_by,omitempty"`
			Comment    string `json:"comment,omitempty"`
			EmptyLayer bool   `json:"empty_layer,omitempty"`
		}{CreatedBy: step})
		for _, f := range secret.Config(cfg) {
			if f.Location == nil || f.Location.Origin == "" {
				t.Fatalf("%+v", f)
			}
		}
	})
}
