package server

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
)

// TestBreakGlassIsLogged: that a token was made and that it was used are signed
// statements in the audit record, and entries of the log.
func TestBreakGlassIsLogged(t *testing.T) {
	d, keys := openKeys(t, t.TempDir())
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openSignatureLog(t.Context(), d, signatureLogOptions{origin: "registry.example", key: key})
	if err != nil {
		t.Fatal(err)
	}
	g := &glass{Server: &Server{db: d, keys: keys, statements: func() statementLog { return l }, metrics: newMetrics("test"), log: slog.New(slog.DiscardHandler)}}
	digest := gatehouse.DigestOf([]byte("image"))
	made, err := g.Create(t.Context(), gatehouse.Actor{Name: "root", Admin: true}, api.BreakGlassRequest{Namespace: "shop", Digest: digest, Requester: "ann", Reason: "it burns"})
	if err != nil {
		t.Fatal(err)
	}
	req, denial := deniedPod(digest, made.(breakGlassDoc).Secret)
	if out := g.override(t.Context(), req, denial); out.Verdict != gatehouse.Warn {
		t.Fatalf("%+v", out)
	}
	var statements [][]byte
	err = d.Get(t.Context(), func(tx *db.Tx) error {
		records, err := tx.Audit(t.Context(), 0, 100)
		for _, r := range records {
			if !strings.HasPrefix(r.Action, "break-glass.") {
				continue
			}
			var detail struct{ Statement json.RawMessage }
			if err := json.Unmarshal([]byte(r.Detail), &detail); err != nil {
				return err
			}
			statements = append(statements, detail.Statement)
		}
		return err
	})
	if err != nil || len(statements) != 2 {
		t.Fatalf("%d statements: %v", len(statements), err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	public, err := keys.Public(t.Context(), keyBreakGlass)
	if err != nil {
		t.Fatal(err)
	}
	for n, s := range statements {
		entry, err := sigstore.StatementEntry(s, public)
		if err != nil {
			t.Fatal(err)
		}
		// The same entry has one place: these two are there already.
		if in, err := l.AddAndWait(t.Context(), entry); err != nil || in.Index != int64(n) {
			t.Errorf("statement %d has place %d: %v", n, in.Index, err)
		}
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestBreakGlassWithoutADatabase: what cannot be marked as used overrides nothing,
// and nobody is told why.
func TestBreakGlassWithoutADatabase(t *testing.T) {
	d, keys := openKeys(t, t.TempDir())
	g := &glass{Server: &Server{db: d, keys: keys, metrics: newMetrics("test"), log: slog.New(slog.DiscardHandler)}}
	digest := gatehouse.DigestOf([]byte("image"))
	made, err := g.Create(t.Context(), gatehouse.Actor{Name: "root", Admin: true}, api.BreakGlassRequest{Namespace: "shop", Digest: digest, Requester: "ann", Reason: "it burns"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	req, denial := deniedPod(digest, made.(breakGlassDoc).Secret)
	out := g.override(t.Context(), req, denial)
	if text, err := json.Marshal(out); out.Verdict != gatehouse.Deny || err != nil || !strings.Contains(string(text), "could not be checked") || strings.Contains(string(text), "closed") {
		t.Errorf("%s %v", text, err)
	}
}

// deniedPod is a review of a Pod that carries a token, and its denial.
func deniedPod(digest gatehouse.Digest, token string) (gatehouse.Request, gatehouse.Decision) {
	image := "x.example/a@" + string(digest)
	object := `{"apiVersion":"v1","kind":"Pod","metadata":{"uid":"u","annotations":{"gatehouse.dev/break-glass":"` + token + `"}},"spec":{"containers":[{"image":"` + image + `"}]}}`
	req := gatehouse.Request{Operation: "CREATE", Namespace: "shop", User: gatehouse.User{Name: "ann"}, Object: []byte(object), Now: time.Now().UTC()}
	set := decide.PolicySet{Complete: true}
	req.Images = set.Images(req)
	return req, decide.Decide(context.Background(), set, req)
}

// FuzzReviewed: whatever an object is, it is kept without a panic, what is kept is
// JSON again, and what tells reviews apart leaves what is kept alone.
func FuzzReviewed(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","generateName":"a","labels":{"pod-template-hash":"1"},"annotations":{"gatehouse.dev/break-glass":"x y"}},"spec":{"volumes":[{"name":"kube-api-access-x"}],"containers":[{"volumeMounts":[{"name":"kube-api-access-x"}]}]},"status":{}}`))
	f.Add([]byte(`{"metadata":[],"spec":{"volumes":{},"containers":[1,{"volumeMounts":[null]}]}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, object []byte) {
		_, _, _ = carried(object)
		one := reviewed{req: gatehouse.Request{Operation: "CREATE", Object: object, OldObject: object}}
		doc, digest, err := docOfReview(one)
		if err != nil {
			return
		}
		if digest == "" {
			t.Error("kept without a digest")
		}
		if again, err := objectOf(object); err != nil || !reflect.DeepEqual(again, doc.Object) {
			t.Errorf("what is kept was changed: %v", err)
		}
		if _, err := doc.request(time.Unix(1, 0)); err != nil {
			t.Error(err)
		}
	})
}
