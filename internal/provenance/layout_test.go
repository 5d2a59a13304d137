package provenance_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	intoto "github.com/in-toto/in-toto-golang/in_toto"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/provenance"
)

// actor is somebody with a key, for us and for in-toto's own library.
type actor struct {
	theirs intoto.Key
	pem    string
	digest gatehouse.Digest
}

func newActor(t *testing.T, key crypto.Signer) actor {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var a actor
	if err := a.theirs.LoadKeyReaderDefaults(bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))); err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	sum := sha256.Sum256(public)
	a.digest = gatehouse.NewDigest("sha256", sum[:])
	return a
}

func (a actor) public() intoto.Key {
	k := a.theirs
	k.KeyVal.Private = ""
	return k
}

func actors(t *testing.T) map[string]actor {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]actor{"ecdsa": newActor(t, ec), "ed25519": newActor(t, ed), "rsa": newActor(t, rs)}
}

const layoutEnd = "2056-01-01T00:00:00Z"

// layoutOf makes a layout of three steps; change may spoil it before it is signed.
func layoutOf(who map[string]actor, change func(*intoto.Layout)) intoto.Layout {
	key := func(name string) string { return who[name].theirs.KeyID }
	step := func(name string, threshold int, materials, products [][]string, keys ...string) intoto.Step {
		return intoto.Step{
			Type: "step", PubKeys: keys, Threshold: threshold, ExpectedCommand: []string{},
			SupplyChainItem: intoto.SupplyChainItem{Name: name, ExpectedMaterials: materials, ExpectedProducts: products},
		}
	}
	l := intoto.Layout{
		Type: "layout", Expires: layoutEnd, Readme: "\u00fc\"\\\n", Inspect: []intoto.Inspection{},
		Keys: map[string]intoto.Key{key("ecdsa"): who["ecdsa"].public(), key("ed25519"): who["ed25519"].public(), key("rsa"): who["rsa"].public()},
		Steps: []intoto.Step{
			step("clone", 1, [][]string{{"DISALLOW", "*"}}, [][]string{{"CREATE", "src/*"}, {"REQUIRE", "README"}, {"ALLOW", "README"}, {"DISALLOW", "*"}}, key("ecdsa")),
			step("build", 2, [][]string{{"MATCH", "*", "IN", "work", "WITH", "PRODUCTS", "IN", "src", "FROM", "clone"}, {"DISALLOW", "*"}},
				[][]string{{"MODIFY", "work/[!m]*"}, {"DELETE", "old"}, {"CREATE", "app"}, {"ALLOW", "work/main.?"}, {"DISALLOW", "*"}}, key("ecdsa"), key("rsa")),
			step("pack", 1, [][]string{{"match", "app", "with", "products", "from", "build"}, {"DISALLOW", "*"}}, [][]string{{"ALLOW", "*"}}, key("ed25519")),
		},
	}
	if change != nil {
		change(&l)
	}
	return l
}

type artifacts = map[string]intoto.HashObj

func sum(s string) intoto.HashObj { return intoto.HashObj{"sha256": s} }

// linkOf is one step's link as its functionary reports it.
type linkOf struct {
	step, by            string
	materials, products artifacts
}

func goodLinks() []linkOf {
	build := linkOf{"build", "ecdsa", artifacts{"work/main.c": sum("01"), "work/gen.h": sum("02")}, artifacts{"work/main.c": sum("01"), "work/gen.h": sum("03"), "app": sum("0a")}}
	again := build
	again.by = "rsa"
	return []linkOf{
		{"clone", "ecdsa", artifacts{}, artifacts{"src/main.c": sum("01"), "src/gen.h": sum("02"), "README": sum("04")}},
		build, again,
		{"pack", "ed25519", artifacts{"app": sum("0a")}, artifacts{"image.tar": sum("0b")}},
	}
}

// theirVerdict asks in-toto's own library.
func theirVerdict(t *testing.T, who map[string]actor, signed *intoto.Metablock, owner string, links []linkOf) error {
	t.Helper()
	dir := t.TempDir()
	for _, l := range links {
		mb := intoto.Metablock{Signed: intoto.Link{Type: "link", Name: l.step, Materials: l.materials, Products: l.products, ByProducts: map[string]any{}, Command: []string{}, Environment: map[string]any{}}}
		if err := mb.Sign(who[l.by].theirs); err != nil {
			t.Fatal(err)
		}
		if err := mb.Dump(filepath.Join(dir, fmt.Sprintf(intoto.LinkNameFormat, l.step, who[l.by].theirs.KeyID))); err != nil {
			t.Fatal(err)
		}
	}
	key := who[owner].public()
	_, err := intoto.InTotoVerify(signed, map[string]intoto.Key{key.KeyID: key}, dir, "", nil, nil, false)
	return err
}

func ourVerdict(t *testing.T, who map[string]actor, text []byte, owner string, links []linkOf, now time.Time) error {
	t.Helper()
	l, err := provenance.ParseLayout(text)
	if err != nil {
		return err
	}
	if !l.SignedBy([]string{who[owner].pem}) {
		return fmt.Errorf("not signed by %s", owner)
	}
	var ours []provenance.SignedLink
	for _, in := range links {
		predicate, err := json.Marshal(map[string]any{"name": in.step, "materials": in.materials, "products": in.products})
		if err != nil {
			t.Fatal(err)
		}
		facts, err := provenance.Read(fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","predicateType":%q,"predicate":%s}`, provenance.PredicateLink, predicate))
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, provenance.SignedLink{Link: facts.Link, Key: who[in.by].digest})
	}
	if problems := l.Verify(context.Background(), ours, now); len(problems) > 0 {
		return fmt.Errorf("%s", strings.Join(problems, "; "))
	}
	return nil
}

// TestLayoutAsInToto verifies layouts that in-toto's own library has signed, with links
// right and wrong, and compares the verdicts.
func TestLayoutAsInToto(t *testing.T) {
	who := actors(t)
	now := time.Now()
	for name, c := range map[string]struct {
		change func(*intoto.Layout)
		links  func([]linkOf) []linkOf
		says   string // "" = it holds
	}{
		"as it should be":        {},
		"a step is missing":      {links: func(l []linkOf) []linkOf { return l[:3] }, says: "no functionary of step pack"},
		"one builder is missing": {links: func(l []linkOf) []linkOf { return append(l[:2:2], l[3]) }, says: "asks for 2 functionaries, 1 have"},
		"builders differ": {links: func(l []linkOf) []linkOf {
			l[2].products = artifacts{"work/main.c": sum("01"), "work/gen.h": sum("03"), "app": sum("0c")}
			return l
		}, says: "say the same"},
		"somebody else packs": {links: func(l []linkOf) []linkOf { l[3].by = "rsa"; return l }, says: "no functionary of step pack"},
		"source was changed between steps": {links: func(l []linkOf) []linkOf {
			for _, i := range []int{1, 2} {
				l[i].materials = artifacts{"work/main.c": sum("99"), "work/gen.h": sum("02")}
			}
			return l
		}, says: "work/main.c is not allowed by DISALLOW *"},
		"another program is packed":     {links: func(l []linkOf) []linkOf { l[3].materials = artifacts{"app": sum("ff")}; return l }, says: "materials of step pack: app is not allowed"},
		"something is slipped in":       {links: func(l []linkOf) []linkOf { l[0].products["extra"] = sum("05"); return l }, says: "products of step clone: extra is not allowed"},
		"what is required is not there": {links: func(l []linkOf) []linkOf { delete(l[0].products, "README"); return l }, says: "README is required"},
		"materials where none may be":   {links: func(l []linkOf) []linkOf { l[0].materials["x"] = sum("05"); return l }, says: "materials of step clone"},
		"what may not be modified": {links: func(l []linkOf) []linkOf {
			for _, i := range []int{1, 2} {
				l[i].materials["work/mod"] = sum("01")
				l[i].products["work/mod"] = sum("02")
			}
			return l
		}, says: "build"},
		"the layout has ended": {change: func(l *intoto.Layout) { l.Expires = "2020-01-01T00:00:00Z" }, says: "ended at 2020"},
	} {
		t.Run(name, func(t *testing.T) {
			mb := &intoto.Metablock{Signed: layoutOf(who, c.change)}
			if err := mb.Sign(who["rsa"].theirs); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "root.layout")
			if err := mb.Dump(path); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			links := goodLinks()
			if c.links != nil {
				links = c.links(links)
			}
			theirs, ours := theirVerdict(t, who, mb, "rsa", links), ourVerdict(t, who, text, "rsa", links, now)
			if (theirs == nil) != (c.says == "") {
				t.Errorf("in-toto says %v", theirs)
			}
			if (ours == nil) != (c.says == "") || c.says != "" && !strings.Contains(ours.Error(), c.says) {
				t.Errorf("we say %v, want %q; in-toto says %v", ours, c.says, theirs)
			}
			if err := ourVerdict(t, who, text, "ecdsa", links, now); err == nil || !strings.Contains(err.Error(), "not signed by") {
				t.Errorf("by another owner: %v", err)
			}
		})
	}
}

// TestLayoutSignatures: every kind of key, both forms, and nothing that was changed.
func TestLayoutSignatures(t *testing.T) {
	who := actors(t)
	for name, a := range who {
		mb := &intoto.Metablock{Signed: layoutOf(who, nil)}
		if err := mb.Sign(a.theirs); err != nil {
			t.Fatal(err)
		}
		metablock, err := json.Marshal(mb)
		if err != nil {
			t.Fatal(err)
		}
		var envelope intoto.Envelope
		if err := envelope.SetPayload(layoutOf(who, nil)); err != nil {
			t.Fatal(err)
		}
		if err := envelope.Sign(a.theirs); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "layout")
		if err := envelope.Dump(path); err != nil {
			t.Fatal(err)
		}
		dsse, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for form, text := range map[string][]byte{"metablock": metablock, "envelope": dsse} {
			l, err := provenance.ParseLayout(text)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, form, err)
			}
			if !l.SignedBy([]string{a.pem}) || len(l.Keys()) != 3 {
				t.Errorf("%s, %s: its signature does not hold, or of %d keys", name, form, len(l.Keys()))
			}
			for other, b := range who {
				if other != name && l.SignedBy([]string{b.pem}) {
					t.Errorf("%s, %s: the key of %s holds", name, form, other)
				}
			}
		}
		changed := bytes.Replace(metablock, []byte(`"threshold":2`), []byte(`"threshold":1`), 1)
		if l, err := provenance.ParseLayout(changed); err != nil || bytes.Equal(changed, metablock) || l.SignedBy([]string{a.pem}) {
			t.Errorf("%s: a changed layout holds: %v", name, err)
		}
	}
}

// TestLayoutRefused: what cannot be verified is refused when it is read.
func TestLayoutRefused(t *testing.T) {
	who := actors(t)
	plain := func(change func(*intoto.Layout)) []byte {
		b, err := json.Marshal(intoto.Metablock{Signed: layoutOf(who, change)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for want, text := range map[string][]byte{
		"inspections":                   plain(func(l *intoto.Layout) { l.Inspect = []intoto.Inspection{{Type: "inspection"}} }),
		"has no steps":                  plain(func(l *intoto.Layout) { l.Steps = nil }),
		"does not say when it ends":     plain(func(l *intoto.Layout) { l.Expires = "tomorrow" }),
		"of type \"link\"":              plain(func(l *intoto.Layout) { l.Type = "link" }),
		"is not among the keys":         plain(func(l *intoto.Layout) { l.Keys = nil }),
		"the threshold is 3":            plain(func(l *intoto.Layout) { l.Steps[1].Threshold = 3 }),
		"the threshold is 0":            plain(func(l *intoto.Layout) { l.Steps[1].Threshold = 0 }),
		"another step has the name":     plain(func(l *intoto.Layout) { l.Steps[1].Name = "clone" }),
		"\"PERMIT *\" is not known":     plain(func(l *intoto.Layout) { l.Steps[0].ExpectedProducts = [][]string{{"PERMIT", "*"}} }),
		"is not MATCH pattern":          plain(func(l *intoto.Layout) { l.Steps[0].ExpectedProducts = [][]string{{"MATCH", "*", "FROM", "x"}} }),
		"is too short":                  plain(func(l *intoto.Layout) { l.Steps[0].ExpectedProducts = [][]string{{"ALLOW"}} }),
		"neither a signed layout":       []byte(`{}`),
		"it is of type":                 []byte(`{"signed":{"_type":"x"}}`),
		"not in-toto metadata":          []byte(`{"payload":"e30=","payloadType":"x"}`),
		"not encoded":                   []byte(`{"signed":{},"signatures":[{"sig":"zz"}]}`),
		"canonical form":                []byte(`{"signed":{"a":1.5}}`),
		"cannot be read":                []byte(`{`),
		"bytes":                         make([]byte, provenance.LayoutSizeMax+1),
		"one PEM public key":            []byte(`{"signed":{"_type":"layout","expires":"2056-01-01T00:00:00Z","steps":[{}],"keys":{"a":{"keytype":"rsa"}}}}`),
		"certificates are not":          []byte(`{"signed":{"_type":"layout","expires":"2056-01-01T00:00:00Z","steps":[{}],"keys":{"a":{"keyval":{"certificate":"x"}}}}}`),
		"an Ed25519 key in hexadecimal": []byte(`{"signed":{"_type":"layout","expires":"2056-01-01T00:00:00Z","steps":[{}],"keys":{"a":{"keytype":"ed25519","keyval":{"public":"00"}}}}}`),
	} {
		if _, err := provenance.ParseLayout(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// FuzzLayout: a layout that reads, reads the same again, and without links it never
// holds.
func FuzzLayout(f *testing.F) {
	f.Add([]byte(`{"signed":{"_type":"layout","expires":"2056-01-01T00:00:00Z","keys":{"k":{"keytype":"ed25519","keyval":{"public":"` + strings.Repeat("00", 32) + `"}}},"steps":[{"name":"a","threshold":1,"pubkeys":["k"],"expected_products":[["MATCH","[!a-z]*","IN","x","WITH","PRODUCTS","FROM","a"]]}]},"signatures":[{"sig":"00"}]}`))
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"` + base64.StdEncoding.EncodeToString([]byte(`{"_type":"layout"}`)) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := provenance.ParseLayout(b)
		if err != nil {
			return
		}
		if len(l.Verify(t.Context(), nil, time.Time{})) == 0 {
			t.Error("it holds without links")
		}
		again, err := provenance.ParseLayout(b)
		if err != nil || len(again.Steps) != len(l.Steps) || !again.Expires.Equal(l.Expires) {
			t.Errorf("read again: %v", err)
		}
	})
}
