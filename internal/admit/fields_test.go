package admit

import (
	"bytes"
	"encoding/json"
	"testing"
)

// sameFields fails where fields takes what is not one JSON object, or reads one
// otherwise than encoding/json does.
func sameFields(t *testing.T, b []byte) {
	t.Helper()
	before := bytes.Clone(b)
	got, err := fields(b, "it")
	if !bytes.Equal(b, before) {
		t.Fatalf("%q was changed to %q", before, b)
	}
	var want map[string]json.RawMessage
	if bad := json.Unmarshal(b, &want); bad != nil || want == nil {
		if err == nil {
			t.Errorf("%q is taken: %v", b, bad)
		}
		return
	}
	if err != nil {
		return // a name twice, or too many: others test that
	}
	if len(got) != len(want) {
		t.Errorf("%q: %d fields, want %d", b, len(got), len(want))
	}
	for name, value := range want {
		if !bytes.Equal(got[name], value) {
			t.Errorf("%q: %q is %q, want %q", b, name, got[name], value)
		}
	}
}

var fieldTexts = []string{
	`{}`, ` { } `, "\n{\t\"a\" : 1 , \"b\":[1,{\"c\":\"}\"}] }\r\n", `{"a":"\\","b":"\"}","c":"\\\""}`, `{"":null,"a":true,"b":false,"c":-1.5e3,"d":{}}`,
	`{"a":1,"\u0061":2}`, `{"a":{"a":1},"b":{"a":1}}`, `{"\u00e9é":"\u00e9"}`, "{\"\xff\":\"\xff\"}",
	``, ` `, `null`, `1`, `"{}"`, `[]`, `{`, `{"a`, `{"a":`, `{"a":1`, `{"a":1,}`, `{"a":1}}`, `{"a":1} {}`, `{"a" 1}`, `{"a":[}`, `{"a":tru}`, "{\"a\":1}\x00",
}

func TestFields(t *testing.T) {
	for _, text := range fieldTexts {
		sameFields(t, []byte(text))
	}
	if _, err := fields([]byte(`{"a":1,"\u0061":2}`), "it"); err == nil {
		t.Error("a name is taken twice")
	}
}

func FuzzFields(f *testing.F) {
	for _, text := range fieldTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) { sameFields(t, b) })
}
