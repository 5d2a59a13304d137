package sigstore_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestRefused: what is not a valid signature does not get in, and the answer says
// why in Rekor's form.
func TestRefused(t *testing.T) {
	r := newRekor(t, nil)
	s, other := sign256(t, "artifact"), sign256(t, "other")
	edPub, edKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	edDER, err := x509.MarshalPKIXPublicKey(edPub)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(hr, sig, verifier object)) object {
		req := s.request()
		hr := req["hashedRekordRequestV002"].(object)
		sig := hr["signature"].(object)
		f(hr, sig, sig["verifier"].(object))
		return req
	}
	twoKeys := envelope(t, "statement", s, other)
	twoKeys["dsseRequestV002"].(object)["verifiers"] = []object{s.verifier()}
	idle := envelope(t, "statement", s)
	idle["dsseRequestV002"].(object)["verifiers"] = []object{s.verifier(), other.verifier()}
	tampered := envelope(t, "statement", s)
	tampered["dsseRequestV002"].(object)["envelope"].(object)["payload"] = []byte("another")
	crowd := envelope(t, "statement", s, s, s, s, s, s, s, s, s)
	for name, c := range map[string]struct {
		body   any
		status int
		says   string
	}{
		"no JSON":           {"hello", 400, "CreateEntryRequest"},
		"empty":             {object{}, 400, "neither"},
		"unknown field":     {object{"x": 1}, 400, "unknown field"},
		"both":              {object{"hashedRekordRequestV002": object{}, "dsseRequestV002": object{}}, 400, "CreateEntryRequest"},
		"nothing in it":     {object{"hashedRekordRequestV002": object{}}, 400, "no public key"},
		"null":              {object{"hashedRekordRequestV002": nil}, 400, "neither"},
		"another digest":    {change(func(hr, _, _ object) { hr["digest"] = other.digest[:] }), 400, "not accepted"},
		"short digest":      {change(func(hr, _, _ object) { hr["digest"] = s.digest[:20] }), 400, "20 bytes"},
		"another signature": {change(func(_, sig, _ object) { sig["content"] = other.sig }), 400, "not accepted"},
		"no signature":      {change(func(_, sig, _ object) { sig["content"] = "" }), 400, "0 bytes"},
		"another key":       {change(func(_, _, v object) { v["publicKey"] = object{"rawBytes": other.pub} }), 400, "not accepted"},
		"garbage key":       {change(func(_, _, v object) { v["publicKey"] = object{"rawBytes": []byte("key")} }), 400, "cannot be read"},
		"huge key":          {change(func(_, _, v object) { v["publicKey"] = object{"rawBytes": make([]byte, 20_000)} }), 413, "20000 bytes"},
		"garbage certificate": {change(func(_, sig, _ object) {
			sig["verifier"] = object{"x509Certificate": object{"rawBytes": []byte("x")}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
		}), 400, "cannot be read"},
		"another kind":   {change(func(_, _, v object) { v["keyDetails"] = "PKIX_RSA_PKCS1V15_2048_SHA256" }), 400, "not one of"},
		"no kind":        {change(func(_, _, v object) { delete(v, "keyDetails") }), 400, "not accepted"},
		"forbidden kind": {change(func(_, _, v object) { v["keyDetails"] = "PKCS1_RSA_PSS" }), 400, "not accepted"},
		"plain Ed25519": {change(func(_, sig, _ object) {
			sig["content"] = ed25519.Sign(edKey, s.digest[:])
			sig["verifier"] = object{"publicKey": object{"rawBytes": edDER}, "keyDetails": "PKIX_ED25519"}
		}), 400, "Ed25519ph"},
		"envelope without key":       {twoKeys, 400, "no key verifies"},
		"envelope with an idle key":  {idle, 400, "verifies no signature"},
		"changed payload":            {tampered, 400, "verifies no signature"},
		"envelope of nine":           {crowd, 400, "9 signatures"},
		"envelope without anything":  {object{"dsseRequestV002": object{}}, 400, "0 signatures"},
		"a request beyond the limit": {strings.Repeat("x", 5<<20), 413, "more than"},
		"deep nesting":               {json.RawMessage(strings.Repeat(`{"hashedRekordRequestV002":`, 20_000)), 400, "CreateEntryRequest"},
	} {
		body, ok := c.body.(json.RawMessage)
		if !ok {
			var err error
			if body, err = json.Marshal(c.body); err != nil {
				t.Fatal(err)
			}
		}
		status, header, answer := r.post(body)
		var e struct {
			Code    int
			Message string
			Details []any
		}
		if err := json.Unmarshal(answer, &e); err != nil || e.Code != 3 || e.Details == nil || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %v", name, answer, err)
		}
		if status != c.status || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %d %s; want %d with %q", name, status, e.Message, c.status, c.says)
		}
	}
	res, err := r.client.Get(r.url + "/api/v2/log/entries")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %s", res.Status)
	}
	if stats, err := r.log.Stats(t.Context()); err != nil || stats.Size != 0 || stats.Waiting != 0 {
		t.Errorf("%+v %v", stats, err)
	}
}
