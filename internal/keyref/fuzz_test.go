package keyref

import (
	"strings"
	"testing"
)

func FuzzReference(f *testing.F) {
	for _, s := range []string{"cosign.key", "env://A", "k8s://a/b", "awskms:///x", "pkcs11:x", "https://a/b", "../x://y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		k, rest, err := parse(ref)
		if err != nil {
			return
		}
		switch k {
		case kindPlugin:
			if scheme, _, _ := strings.Cut(rest, "://"); strings.ContainsAny(scheme, "/\\ \x00") {
				t.Errorf("program %q", scheme)
			}
		case kindCluster:
			if ns, name, err := secretOf(rest); err == nil && (strings.Contains(ns+name, "/") || ns == ".." || name == ".." || ns == "." || name == ".") {
				t.Errorf("a way out: %q %q", ns, name)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"publicKey":{"publicKeyPEM":"bXlwZW0="}}`))
	f.Add([]byte(`{"errorMessage":"x"}`))
	f.Add([]byte(`{"signMessage":{"signature":"AA=="}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out := &head{max: answerSizeMax}
		_, _ = out.Write(b)
		if a, err := readAnswer(out, "publicKey"); err == nil && a.PublicKey == nil {
			t.Error("no answer")
		}
		if a, err := readAnswer(out, "signMessage"); err == nil && len(a.SignMessage.Signature) == 0 {
			t.Error("no signature")
		}
	})
}

func FuzzKubeconfig(f *testing.F) {
	f.Add([]byte("current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: https://x}}]\nusers: [{name: u, user: {token: t}}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var k kubeconfig
		if k.parse(b, "/nowhere/config") == nil {
			for i := range k.Users { // the machine that fuzzes runs no stranger's programs
				k.Users[i].User.Exec = nil
			}
			if c, err := k.cluster(t.Context(), Options{}); err == nil && c == nil {
				t.Error("neither a cluster nor an error")
			}
		}
	})
}

func FuzzSecret(f *testing.F) {
	f.Add([]byte(`{"kind":"Secret","data":{"cosign.pub":"AA=="},"metadata":{"uid":"1"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSecret(b); err == nil && s.object == nil {
			t.Error("no object")
		}
	})
}
