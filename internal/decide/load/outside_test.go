package load_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestOutside loads policies that refer to trust roots, key services and TUF
// repositories, and compares whom the needs of the set then trust. The file
// default.json is the trusted root that counts without a name; a TUF repository
// holds the same, and kms://known is the key of the file known.pub.
func TestOutside(t *testing.T) {
	text.Run(t, "testdata/outside/*.txtar", 5, func(_ *testing.T, a *txtar.Archive) string {
		var files []load.File
		var o cip.Outside
		for _, f := range a.Files {
			switch f.Name {
			case "want":
			case "default.json":
				o.Trust = f.Data
				o.Repository = func(r cip.TUF) ([]byte, error) {
					if r.Mirror == "https://absent.example" {
						return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "absent.example does not answer").WithHint("try again")
					}
					return f.Data, nil
				}
			case "known.pub":
				o.Key = func(uri string) (string, error) {
					if uri != "kms://known" {
						return "", gatehouse.Errorf(gatehouse.CodeNotFound, "no such key").WithHint("look at its name")
					}
					return string(f.Data), nil
				}
			default:
				files = append(files, load.File{Path: f.Name, Data: f.Data})
			}
		}
		set, problems := load.Loader{Outside: o}.Load(files, gatehouse.Deny)
		out := describe(set, problems)
		req := gatehouse.Request{Object: []byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"registry.example/a:1"}]}}`)}
		req.Images = set.Images(req)
		for _, n := range set.Needs(req) {
			out += describeNeed(n)
		}
		return out
	})
}

func describeNeed(n gatehouse.Need) string {
	a := n.Authority
	var b strings.Builder
	fmt.Fprintf(&b, "need %s predicate=%q keys=%d hash=%q log=%t timestamp=%t format=%q sources=%v\n", n.Name, n.Predicate, len(a.Keys), a.Hash, a.RequireLog, a.RequireTimestamp, a.Format, a.Sources)
	if k := a.Keyless; k != nil {
		fmt.Fprintf(&b, "\tkeyless sct=%t log=%t\n", !k.IgnoreSCT, !k.IgnoreLog)
		for _, id := range k.Identities {
			fmt.Fprintf(&b, "\tissuer %q %q subject %q %q\n", id.Issuer, id.IssuerRegExp, id.Subject, id.SubjectRegExp)
		}
	}
	var trusted struct {
		CertificateAuthorities, TimestampAuthorities []struct{ URI string }
		Tlogs, Ctlogs                                []struct{ BaseURL string }
	}
	if len(a.Trust) == 0 {
		return b.String()
	}
	if err := json.Unmarshal(a.Trust, &trusted); err != nil {
		return err.Error()
	}
	for _, part := range []struct {
		name string
		of   any
	}{{"certificates", trusted.CertificateAuthorities}, {"ct logs", trusted.Ctlogs}, {"logs", trusted.Tlogs}, {"timestamps", trusted.TimestampAuthorities}} {
		fmt.Fprintf(&b, "\t%s %v\n", part.name, part.of)
	}
	return b.String()
}

// TestTrustRootOrder: a policy may stand before the trust root that it names.
func TestTrustRootOrder(t *testing.T) {
	a, err := txtar.ParseFile("testdata/outside/trust_root.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var files []load.File
	for _, f := range a.Files {
		if strings.HasSuffix(f.Name, ".yaml") {
			files = append(files, load.File{Path: f.Name, Data: f.Data})
		}
	}
	one, _ := load.Load(files, gatehouse.Deny)
	slices.Reverse(files)
	for i := range files {
		files[i].Path = fmt.Sprintf("%d.yaml", i)
	}
	two, problems := load.Load(files, gatehouse.Deny)
	if !one.Complete || !two.Complete || one.Digest != two.Digest {
		t.Errorf("complete %t and %t, %s and %s: %v", one.Complete, two.Complete, one.Digest, two.Digest, problems)
	}
}

// TestDefaultTrustIsPartOfTheSet: a set that trusts another Sigstore is another one.
func TestDefaultTrustIsPartOfTheSet(t *testing.T) {
	files := []load.File{{Path: "a.rego", Data: []byte("package a\ndeny contains \"a\" if false\n")}}
	one, _ := load.Load(files, gatehouse.Deny)
	two, _ := load.Loader{Outside: cip.Outside{Trust: []byte("x")}}.Load(files, gatehouse.Deny)
	if one.Digest == two.Digest {
		t.Error("the same digest")
	}
}
