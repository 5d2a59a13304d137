package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

type token struct {
	ID               int64
	Token, State     string
	Decision, Reason string
}

func (r *running) token(ask map[string]any) (t token) {
	r.t.Helper()
	for key, value := range map[string]any{"namespace": "shop", "image": digestA, "requester": "ann", "reason": "the shop is down"} {
		if _, ok := ask[key]; !ok {
			ask[key] = value
		}
	}
	body, err := json.Marshal(ask)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(r.must("POST", "/api/v1/break-glass", string(body))), &t); err != nil || !strings.HasPrefix(t.Token, "gbg_") {
		r.t.Fatal(t, err)
	}
	return t
}

func (r *running) tokens() (out []token) {
	r.t.Helper()
	var page struct{ Tokens []token }
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/break-glass", "")), &page); err != nil {
		r.t.Fatal(err)
	}
	return page.Tokens
}

var digestA, digestB = string(gatehouse.DigestOf([]byte("a"))), string(gatehouse.DigestOf([]byte("b")))

// carrying is a Pod with tokens in its annotation.
func carrying(uid string, tokens string, images ...string) string {
	var containers []string
	for _, i := range images {
		containers = append(containers, fmt.Sprintf(`{"image":%q}`, i))
	}
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","uid":%q,"annotations":{"gatehouse.dev/break-glass":%q}},"spec":{"containers":[%s]}}`,
		uid, tokens, strings.Join(containers, ","))
}

// closed starts a server whose policies let nothing run.
func closed(t *testing.T) *running {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/closed.yaml", passes("closed", "**", "fail"))
	return r
}

// TestBreakGlass: a token lets its image run, once, for whom and where it is for, and
// all of that is noted. An annotation alone is worth nothing.
func TestBreakGlass(t *testing.T) {
	r := closed(t)
	a := "x.example/a@" + digestA
	tok := r.token(map[string]any{})
	for name, deny := range map[string]answer{
		"no token":          r.askAs("ann", "shop", carrying("u", "", a)),
		"a made-up token":   r.askAs("ann", "shop", carrying("u", "gbg_AAAAAAAAAAAAAAAAAAAAAAAAAA", a)),
		"its number":        r.askAs("ann", "shop", carrying("u", fmt.Sprint(tok.ID), a)),
		"another user":      r.askAs("eve", "shop", carrying("u", tok.Token, a)),
		"nobody":            r.askAs("", "shop", carrying("u", tok.Token, a)),
		"another namespace": r.askAs("ann", "prod", carrying("u", tok.Token, a)),
		"another image":     r.askAs("ann", "shop", carrying("u", tok.Token, "x.example/b@"+digestB)),
		"one more image":    r.askAs("ann", "shop", carrying("u", tok.Token, a, "x.example/b@"+digestB)),
		"a tag":             r.askAs("ann", "shop", carrying("u", tok.Token, "x.example/a:1")),
		"too many tokens":   r.askAs("ann", "shop", carrying("u", tok.Token+" 1 2 3 4 5 6 7 8 9 10", a)),
		"an unread object":  r.askAs("ann", "shop", strings.Replace(carrying("u", tok.Token, a), `"spec":{`, `"spec":{"initContainers":7,`, 1)),
	} {
		if deny.Allowed || name != "no token" && !strings.Contains(deny.Status.Message, "break-glass") {
			t.Errorf("%s: allowed %v, %s", name, deny.Allowed, deny.Status.Message)
		}
	}
	if list := r.tokens(); len(list) != 1 || list[0].State != "open" || list[0].Token != "" {
		t.Errorf("before: %+v", list)
	}
	good := r.askAs("ann", "shop", carrying("u1", tok.Token, a))
	if !good.Allowed || !strings.Contains(strings.Join(good.Warnings, "\n"), "the shop is down") || !strings.Contains(strings.Join(good.Warnings, "\n"), "static-fail") {
		t.Fatalf("%+v", good)
	}
	if list := r.tokens(); list[0].State != "used" || list[0].Decision != good.Notes["decision"] {
		t.Errorf("after: %+v", list)
	}
	var d gatehouse.Decision
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/decisions/"+good.Notes["decision"], "")), &d); err != nil || d.Verdict != gatehouse.Warn {
		t.Errorf("the decision: %v %+v", err, d)
	}
	if again := r.askAs("ann", "shop", carrying("u2", tok.Token, a)); again.Allowed || !strings.Contains(again.Status.Message, "has been used") {
		t.Errorf("used twice: %+v", again)
	}
	if same := r.askAs("ann", "shop", carrying("u1", tok.Token, a)); !same.Allowed {
		t.Errorf("another look at the same object: %+v", same)
	}
	if metrics := r.must("GET", "/metrics", ""); !strings.Contains(metrics, `gatehouse_admission_break_glass_total{result="used"} 2`) || !strings.Contains(metrics, `result="created"} 1`) {
		t.Error("the figures are missing")
	}
}

// TestBreakGlassScope: each image needs its token, and what is no image needs one
// for everything.
func TestBreakGlassScope(t *testing.T) {
	r := closed(t)
	a, b := r.token(map[string]any{}), r.token(map[string]any{"image": "x.example/b@" + digestB})
	if both := r.askAs("ann", "shop", carrying("u", b.Token+"\n "+a.Token, "x.example/a@"+digestA, "x.example/b@"+digestB)); !both.Allowed {
		t.Errorf("two tokens: %+v", both)
	}
	r.must("PUT", "/api/v1/policies/names.rego", "package names\ndeny contains msg if {\n\tinput.review.object.metadata.name == \"p\"\n\tmsg := \"p is no name\"\n}\n")
	narrow, wide := r.token(map[string]any{}), r.token(map[string]any{"everything": true})
	if no := r.askAs("ann", "shop", carrying("u", narrow.Token, "x.example/a@"+digestA)); no.Allowed || !strings.Contains(no.Status.Message, "--everything") {
		t.Errorf("a policy about the object: %+v", no)
	}
	if yes := r.askAs("ann", "shop", carrying("u", wide.Token, "x.example/a@"+digestA)); !yes.Allowed || !strings.Contains(strings.Join(yes.Warnings, "\n"), "p is no name") {
		t.Errorf("everything: %+v", yes)
	}
	r.must("DELETE", fmt.Sprintf("/api/v1/break-glass/%d", narrow.ID), "")
	r.must("DELETE", "/api/v1/policies/names.rego", "")
	if gone := r.askAs("ann", "shop", carrying("u", narrow.Token, "x.example/a@"+digestA)); gone.Allowed || !strings.Contains(gone.Status.Message, "was revoked") {
		t.Errorf("revoked: %+v", gone)
	}
	// Where no policy could say yes, tokens for all images do.
	r.must("DELETE", "/api/v1/policies/closed.yaml", "")
	last := r.token(map[string]any{})
	if yes := r.askAs("ann", "shop", carrying("u", last.Token, "x.example/a@"+digestA)); !yes.Allowed {
		t.Errorf("without policies: %+v", yes)
	}
}

// TestBreakGlassOnce: of many reviews at once one gets through.
func TestBreakGlassOnce(t *testing.T) {
	r := closed(t)
	tok := r.token(map[string]any{})
	var allowed atomic.Int32
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			if r.askAs("ann", "shop", carrying(fmt.Sprint("u", i), tok.Token, "x.example/a@"+digestA)).Allowed {
				allowed.Add(1)
			}
		})
	}
	all.Wait()
	if allowed.Load() != 1 {
		t.Errorf("%d reviews got through", allowed.Load())
	}
}

// TestBreakGlassAsksTheCluster, when a token is used and when a user of the cluster
// wants one.
func TestBreakGlassAsksTheCluster(t *testing.T) {
	r := closed(t)
	cluster := &access{}
	server.ConnectGlass(r.Server, cluster)
	tok := r.token(map[string]any{})
	made := carrying("u", "made-up", "x.example/a@"+digestA)
	if no := r.askAs("ann", "shop", made); no.Allowed || cluster.asked != 0 {
		t.Errorf("the cluster is asked %d times about tokens that nobody gave: %+v", cluster.asked, no)
	}
	pod := carrying("u", tok.Token, "x.example/a@"+digestA)
	if no := r.askAs("ann", "shop", pod); no.Allowed || !strings.Contains(no.Status.Message, "ann may not break the glass in namespace shop") {
		t.Errorf("not allowed there: %+v", no)
	}
	cluster.set("ann shop", errors.New("the cluster is away, secretly"))
	if no := r.askAs("ann", "shop", pod); no.Allowed || strings.Contains(no.Status.Message, "secretly") {
		t.Errorf("it does not answer: %+v", no)
	}
	cluster.set("ann shop", nil)
	if yes := r.askAs("ann", "shop", pod); !yes.Allowed {
		t.Errorf("allowed there: %+v", yes)
	}
	for name, try := range map[string]struct {
		actor     gatehouse.Actor
		requester string
		code      gatehouse.Code
	}{
		"whom the cluster allows":           {gatehouse.Actor{Name: "ann", Source: "kubernetes"}, "ann", ""},
		"for somebody else":                 {gatehouse.Actor{Name: "ann", Source: "kubernetes"}, "bob", gatehouse.CodeDenied},
		"whom it does not":                  {gatehouse.Actor{Name: "bob", Source: "kubernetes"}, "bob", gatehouse.CodeDenied},
		"an account of the same name":       {gatehouse.Actor{Name: "ann", Source: "local"}, "ann", gatehouse.CodeDenied},
		"an administrator, for whom he may": {gatehouse.Actor{Name: "root", Source: "local", Admin: true}, "bob", ""},
	} {
		if err := server.CreateGlass(t.Context(), r.Server, try.actor, try.requester, digestA); gatehouse.CodeOf(err) != try.code && !(err == nil && try.code == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// access is a cluster that lets one user do it in one namespace.
type access struct {
	mu  sync.Mutex
	may string // "user namespace"
	err error

	asked int
}

func (a *access) set(may string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.may, a.err = may, err
}

func (a *access) CanBreakGlass(_ context.Context, user gatehouse.User, namespace string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	return a.may == user.Name+" "+namespace, a.err
}

// TestBreakGlassRefusesWhatSaysTooLittle.
func TestBreakGlassRefusesWhatSaysTooLittle(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	good := map[string]string{"namespace": "shop", "image": digestA, "requester": "ann", "reason": "x"}
	for _, bad := range []struct{ key, value, want string }{
		{"namespace", "", "name of one"}, {"namespace", "Shop", "name of one"}, {"namespace", "*", "name of one"},
		{"image", "x.example/a:1", "has no digest"}, {"image", "", ""}, {"image", "sha256:abc", ""},
		{"requester", "", "name of a user"}, {"reason", " \n", "no reason"}, {"ttl", "25h", "24h"}, {"ttl", "1s", "1m"}, {"ttl", "-1h", "how long"}, {"tttl", "1h", "unknown field"},
	} {
		ask := map[string]string{}
		for k, v := range good {
			ask[k] = v
		}
		ask[bad.key] = bad.value
		body, err := json.Marshal(ask)
		if err != nil {
			t.Fatal(err)
		}
		if code, answer := r.call("POST", "/api/v1/break-glass", string(body)); code != 400 && code != 422 || !strings.Contains(answer, bad.want) {
			t.Errorf("%s=%q: %d %s", bad.key, bad.value, code, answer)
		}
	}
	if len(r.tokens()) != 0 {
		t.Error("a refused token is there")
	}
}
