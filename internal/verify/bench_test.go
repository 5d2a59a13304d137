package verify_test

import (
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// BenchmarkLocalStore verifies what lies in our own registry, on SQLite, with
// nothing remembered and with everything remembered. p50 is the median.
func BenchmarkLocalStore(b *testing.B) {
	d, err := db.OpenSQLite(b.Context(), filepath.Join(b.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	c := content.New(d, mem.New(), content.Options{})
	s, k := verifytest.New(b), verifytest.NewKey(b)
	for _, kind := range []struct {
		name string
		need gatehouse.Need
		of   signing
	}{
		{"key", need(verifytest.PublicPEM(b, k)), signing{Key: k}},
		{"keyless", keyless(s), signing{Log: verifytest.LogV2, Stamp: true}},
		{"keyless-rekor-v1", keyless(s), signing{Log: verifytest.LogV1}},
	} {
		ref := pushSigned(b, c, gatehouse.Repo(kind.name), func(image gatehouse.Digest) []byte { return s.Bundle(statementFor(image, signPredicate), kind.of) })
		roots := trust.NewCache(8)
		for name, v := range map[string]verify.Verifier{
			"fresh": {Roots: roots, Now: now}, "remembered": {Cache: verify.NewLRU(100), Roots: roots, Now: now},
		} {
			b.Run(kind.name+"/"+name, func(b *testing.B) {
				var took []time.Duration
				for b.Loop() {
					start := time.Now()
					evidence, rejected, err := v.Image(b.Context(), c, ref, kind.need)
					took = append(took, time.Since(start))
					if err != nil || len(evidence) != 1 {
						b.Fatal(evidence, rejected, err)
					}
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
			})
		}
	}
}

// pushSigned pushes an image and a bundle that refers to it.
func pushSigned(b testing.TB, c *content.Content, repo gatehouse.Repo, bundle func(image gatehouse.Digest) []byte) gatehouse.Ref {
	b.Helper()
	store := sign.InContent(c, gatehouse.System("test"))
	put := func(tag, doc string) gatehouse.Digest {
		if err := store.PutManifest(b.Context(), repo, tag, typeManifest, []byte(doc)); err != nil {
			b.Fatal(err)
		}
		return gatehouse.DigestOf([]byte(doc))
	}
	blob := func(body []byte) gatehouse.Descriptor {
		l, err := store.PutBlob(b.Context(), repo, body)
		if err != nil {
			b.Fatal(err)
		}
		return l
	}
	empty := blob([]byte("{}"))
	config := `"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + string(empty.Digest) + `","size":2}`
	body := `{"schemaVersion":2,"mediaType":"` + typeManifest + `",` + config + `,"layers":[]}`
	image := put("v1", body)
	l := blob(bundle(image))
	put("", `{"schemaVersion":2,"mediaType":"`+typeManifest+`","artifactType":"`+typeBundle+`",`+config+`,"layers":[{"mediaType":"`+typeBundle+`","digest":"`+string(l.Digest)+
		`","size":`+strconv.FormatInt(l.Size, 10)+`}],"subject":{"mediaType":"`+typeManifest+`","digest":"`+string(image)+`","size":`+strconv.FormatInt(int64(len(body)), 10)+`}}`)
	return gatehouse.Ref{Registry: "localhost:5000", Repo: repo, Digest: image}
}
