package trust_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

func TestFromPEMAndBack(t *testing.T) {
	s := verifytest.New(t)
	doc := s.Trust()
	if again := s.Trust(); !bytes.Equal(doc, again) {
		t.Error("the same files make two documents")
	}
	r, err := trust.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.FulcioCertificateAuthorities()) != 1 || len(r.TimestampingAuthorities()) != 1 || len(r.RekorLogs()) != 1 || len(r.CTLogs()) != 1 || r.ID != gatehouse.DigestOf(doc) {
		t.Errorf("%+v", r)
	}
	// Version 0.2 is read as well, by both of its names, and fields that come later are no error.
	for _, mediaType := range []string{"application/vnd.dev.sigstore.trustedroot.v0.2+json", "application/vnd.dev.sigstore.trustedroot+json;version=0.2"} {
		later := strings.Replace(string(doc), trust.MediaType01, mediaType, 1)
		later = strings.Replace(later, `"tlogs":[{`, `"tlogs":[{"operator":"example.com","later":true,`, 1)
		if _, err := trust.Parse([]byte(later)); err != nil {
			t.Errorf("%s: %v", mediaType, err)
		}
	}
}

func TestPeriods(t *testing.T) {
	s := verifytest.New(t)
	p := s.Files()
	from, until := time.Unix(1_700_000_000, 0).UTC(), time.Unix(1_800_000_000, 0).UTC()
	p.Logs[0].From, p.Logs[0].Until = from, until
	r, err := trust.Parse(s.TrustIn(p))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range r.RekorLogs() {
		if !l.ValidityPeriodStart.Equal(from) || !l.ValidityPeriodEnd.Equal(until) {
			t.Errorf("%+v", l)
		}
	}
}

func TestMerge(t *testing.T) {
	a, b := verifytest.New(t), verifytest.New(t)
	one, err := trust.Merge(a.Trust(), b.Trust(), a.Trust())
	if err != nil {
		t.Fatal(err)
	}
	r, err := trust.Parse(one)
	if err != nil || len(r.FulcioCertificateAuthorities()) != 2 || len(r.TimestampingAuthorities()) != 2 || len(r.RekorLogs()) != 2 || len(r.CTLogs()) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	// Two words about one log: which counts would depend on the order.
	p := a.Files()
	p.Logs[0].Until = time.Unix(1_800_000_000, 0)
	if _, err := trust.Merge(a.Trust(), a.TrustIn(p)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), "twice") {
		t.Error(err)
	}
	if _, err := trust.Merge(a.Trust(), []byte("x")); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Error(err)
	}
}

// TestReplace: what files name is taken from them alone, however the document
// writes its fields, and the rest stays.
func TestReplace(t *testing.T) {
	a, b := verifytest.New(t), verifytest.New(t)
	old := string(a.Trust())
	for in, out := range map[string]string{"certificateAuthorities": "certificate_authorities", "timestampAuthorities": "timestamp_authorities"} {
		if !strings.Contains(old, in) {
			t.Fatal(old)
		}
		old = strings.ReplaceAll(old, in, out)
	}
	counts := func(p trust.PEM) (mine, theirs int) {
		t.Helper()
		document, err := trust.Replace([]byte(old), p)
		if err != nil {
			t.Fatal(err)
		}
		for _, by := range []*verifytest.Sigstore{a, b} {
			for _, part := range []trust.PEM{{CAs: by.Files().CAs}, {TSAs: by.Files().TSAs}, {Logs: by.Files().Logs}, {CTLogs: by.Files().CTLogs}} {
				both, err := trust.Merge(document, by.TrustIn(part))
				if err != nil {
					t.Fatal(err)
				}
				switch has := bytes.Equal(both, document); {
				case has && by == a:
					mine++
				case has:
					theirs++
				}
			}
		}
		return mine, theirs
	}
	f := b.Files()
	for name, part := range map[string]trust.PEM{"CAs": {CAs: f.CAs}, "TSAs": {TSAs: f.TSAs}, "logs": {Logs: f.Logs}, "CT logs": {CTLogs: f.CTLogs}} {
		if mine, theirs := counts(part); mine != 3 || theirs != 1 {
			t.Errorf("%s: %d of 4 stay, %d are new", name, mine, theirs)
		}
	}
	if mine, theirs := counts(f); mine != 0 || theirs != 4 {
		t.Errorf("all: %d of 4 stay, %d are new", mine, theirs)
	}
	if mine, theirs := counts(trust.PEM{}); mine != 4 || theirs != 0 {
		t.Errorf("none: %d of 4 stay, %d are new", mine, theirs)
	}
	if _, err := trust.Replace([]byte("x"), f); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Error(err)
	}
}

func TestBadFiles(t *testing.T) {
	s := verifytest.New(t)
	for name, change := range map[string]func(p *trust.PEM){
		"no certificate":  func(p *trust.PEM) { p.CAs[0].Chain = "" },
		"a placeholder":   func(p *trust.PEM) { p.CAs[0].Chain = "<PEM>" },
		"a key":           func(p *trust.PEM) { p.CAs[0].Chain = p.Logs[0].Key },
		"garbage behind":  func(p *trust.PEM) { p.CAs[0].Chain += "x" },
		"broken":          func(p *trust.PEM) { p.TSAs[0].Chain = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" },
		"log no key":      func(p *trust.PEM) { p.Logs[0].Key = "x" },
		"log certificate": func(p *trust.PEM) { p.Logs[0].Key = p.CAs[0].Chain },
		"log broken key":  func(p *trust.PEM) { p.CTLogs[0].Key = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n" },
		"log no address":  func(p *trust.PEM) { p.Logs[0].URL = "://" },
		"many":            func(p *trust.PEM) { p.CAs[0].Chain = strings.Repeat(p.CAs[0].Chain, 20) },
	} {
		p := s.Files()
		change(&p)
		if _, err := trust.FromPEM(p); err == nil || gatehouse.CodeOf(err) != gatehouse.CodeInvalid && gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadDocuments(t *testing.T) {
	good := string(verifytest.New(t).Trust())
	for name, doc := range map[string]string{
		"nothing":       "",
		"empty":         "{}",
		"another type":  strings.Replace(good, "trustedroot", "bundle", 1),
		"later version": strings.Replace(good, "version=0.1", "version=0.9", 1),
		"broken key":    strings.Replace(good, `"rawBytes":"M`, `"rawBytes":"A`, 1),
		"no chain":      strings.Replace(good, `"certChain"`, `"certChane"`, 1),
		"no log id":     strings.Replace(good, `"logId"`, `"logIt"`, 1),
		"a list":        "[]",
		"large":         strings.Repeat(" ", 2<<20),
	} {
		if r, err := trust.Parse([]byte(doc)); r != nil || gatehouse.CodeOf(err) != gatehouse.CodeInvalid && gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestCache(t *testing.T) {
	c := trust.NewCache(2)
	docs := [][]byte{verifytest.New(t).Trust(), verifytest.New(t).Trust(), verifytest.New(t).Trust()}
	first, err := c.Parse(docs[0])
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := c.Parse(bytes.Clone(docs[0])); again != first {
		t.Error("it was read twice")
	}
	for _, d := range docs[1:] {
		if _, err := c.Parse(d); err != nil {
			t.Fatal(err)
		}
	}
	if again, _ := c.Parse(docs[0]); again == first {
		t.Error("it holds more than it should")
	}
	if _, err := c.Parse([]byte("x")); err == nil {
		t.Error("garbage was read")
	}
}

func FuzzParse(f *testing.F) {
	s := verifytest.New(f)
	f.Add(s.Trust())
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[{}],"certificateAuthorities":[{}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		r, err := trust.Parse(doc)
		if (r == nil) == (err == nil) {
			t.Fatalf("%v, %v", r, err)
		}
		if err != nil {
			return
		}
		merged, err := trust.Merge(doc, doc)
		if err != nil {
			t.Fatalf("it can be read, and not merged with itself: %v", err)
		}
		if _, err := trust.Parse(merged); err != nil {
			t.Fatalf("what was merged cannot be read: %v", err)
		}
	})
}

func FuzzFromPEM(f *testing.F) {
	p := verifytest.New(f).Files()
	f.Add(p.CAs[0].Chain, p.Logs[0].Key, p.Logs[0].URL, "origin")
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x", "://", "")
	f.Fuzz(func(t *testing.T, chain, key, url, origin string) {
		doc, err := trust.FromPEM(trust.PEM{CAs: []trust.CA{{Chain: chain, URL: url}}, Logs: []trust.Log{{Key: key, URL: url, Origin: origin}}})
		if err != nil {
			return
		}
		if _, err := trust.Parse(doc); err != nil {
			t.Fatal(err)
		}
	})
}
