package outside_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/outside"
)

// source answers what a test has put into it.
type source struct {
	text  string
	err   error
	until time.Time
	asked int
}

func (s *source) answer() (string, error)               { s.asked++; return s.text, s.err }
func (s *source) Key(string) (string, error)            { return s.answer() }
func (s *source) Remote(string, string) ([]byte, error) { t, err := s.answer(); return []byte(t), err }
func (s *source) Vouched(cip.TUF) ([]byte, time.Time, error) {
	t, err := s.answer()
	return []byte(t), s.until, err
}
func (s *source) fails()           { s.text, s.err = "", gatehouse.Errorf(gatehouse.CodeUnavailable, "away") }
func (s *source) says(text string) { s.text, s.err = text, nil }

// keeping is a Kept with a clock of the test's own.
type keeping struct {
	*outside.Kept
	*source
	dir string
	now time.Time
	t   *testing.T
}

func newKeeping(t *testing.T) *keeping {
	k := &keeping{source: &source{}, dir: t.TempDir(), now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), t: t}
	k.restart()
	return k
}

func (k *keeping) restart() {
	k.Kept = outside.NewKept(k.source, k.dir, func() time.Time { return k.now }, slog.New(slog.DiscardHandler))
}

func (k *keeping) wait(d time.Duration) { k.now = k.now.Add(d); k.Refresh() }

// root asks for a trusted root and wants this answer, "" for none.
func (k *keeping) root(want string) {
	k.t.Helper()
	got, err := k.Outside().Repository(cip.TUF{Mirror: "https://a.example", Target: "t"})
	if string(got) != want || (err == nil) != (want != "") {
		k.t.Errorf("%q, %v, want %q", got, err, want)
	}
}

// turned reports whether policies are made anew since the last call.
func (k *keeping) turned(before int64, want bool) {
	k.t.Helper()
	if (k.Turn() != before) != want {
		k.t.Errorf("turn %d after %d, want a change: %t", k.Turn(), before, want)
	}
}

// TestKeptGoesOn: what was read counts while its source is away, also after a
// restart, as long as its repository vouched for it.
func TestKeptGoesOn(t *testing.T) {
	k := newKeeping(t)
	k.says("one")
	k.until = k.now.Add(7 * 24 * time.Hour)
	k.root("one")
	k.root("one")
	if k.asked != 1 {
		t.Errorf("asked %d times", k.asked)
	}
	k.fails()
	before := k.Turn()
	k.wait(2 * time.Hour)
	k.root("one")
	k.restart()
	k.root("one")
	k.wait(6 * 24 * time.Hour)
	k.root("one")
	k.turned(before, false)
	k.wait(2 * 24 * time.Hour)
	k.turned(before, true)
	before = k.Turn()
	k.root("")
	if !k.Failing() {
		t.Error("nothing is said to be failing")
	}
	k.says("two")
	k.until = k.now.Add(24 * time.Hour)
	k.wait(time.Minute)
	k.root("two")
	k.turned(before, true)
	if k.Failing() {
		t.Error("something is said to be failing")
	}
}

// TestKeptFollows: what changes at the source changes here within its life, and
// policies learn of it; what did not change disturbs nobody.
func TestKeptFollows(t *testing.T) {
	k := newKeeping(t)
	k.says("one")
	k.root("one")
	before := k.Turn()
	k.wait(2 * time.Hour)
	k.turned(before, false)
	k.says("two")
	k.wait(30 * time.Minute)
	k.root("one")
	k.wait(31 * time.Minute)
	k.turned(before, true)
	k.root("two")
}

// TestKeptFailsFast: who asks again for what does not answer is not made to wait;
// once it answers, policies are made anew.
func TestKeptFailsFast(t *testing.T) {
	k := newKeeping(t)
	k.fails()
	k.root("")
	k.root("")
	k.now = k.now.Add(time.Minute)
	k.root("")
	if k.asked != 1 {
		t.Errorf("asked %d times", k.asked)
	}
	before := k.Turn()
	k.says("one")
	k.wait(time.Second)
	k.turned(before, true)
	k.root("one")
}

// TestKeptForgets: what the policies in force do not refer to any more is not asked
// for again.
func TestKeptForgets(t *testing.T) {
	k := newKeeping(t)
	k.fails()
	k.root("")
	mark := k.Mark()
	k.says("x")
	if text, err := k.Outside().Key("test://key"); text != "x" || err != nil {
		t.Fatal(text, err)
	}
	k.Keep(mark)
	asked := k.asked
	k.wait(time.Hour)
	if k.asked != asked || k.Failing() {
		t.Errorf("asked %d times more, failing: %t", k.asked-asked, k.Failing())
	}
	k.wait(10 * time.Hour)
	if k.asked != asked+1 {
		t.Errorf("asked %d times more", k.asked-asked)
	}
}

// TestRemoteIsKept: a document is fetched once, and a copy that somebody changed is
// none.
func TestRemoteIsKept(t *testing.T) {
	k := newKeeping(t)
	k.says("package sigstore")
	get := func() (string, error) {
		b, err := k.Outside().Remote("https://a.example/p", sum("package sigstore"))
		return string(b), err
	}
	if text, err := get(); text != "package sigstore" || err != nil {
		t.Fatal(text, err)
	}
	k.fails()
	k.restart()
	k.wait(1000 * time.Hour)
	if text, err := get(); text != "package sigstore" || err != nil || k.asked != 1 {
		t.Errorf("%q, %v, asked %d times", text, err, k.asked)
	}
	files, err := filepath.Glob(filepath.Join(k.dir, "remote-*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	for _, text := range []string{`{"Kind":"remote","Name":"https://a.example/p ` + sum("package sigstore") + `","At":"2026-11-21T12:00:00Z","Data":"eA=="}`, "{", ""} {
		if err := os.WriteFile(files[0], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k.restart()
		if text, err := get(); err == nil {
			t.Errorf("%q", text)
		}
	}
}

type cluster map[string]string

func (c cluster) Namespace() string { return "gatehouse-system" }
func (c cluster) Secret(namespace, name string) (map[string][]byte, error) {
	return map[string][]byte{"cosign.pub": []byte(c[namespace+"/"+name])}, nil
}
func (c cluster) ConfigMap(namespace, name string) (map[string]string, error) {
	return map[string]string{"key": c[namespace+"/"+name]}, nil
}

func TestCluster(t *testing.T) {
	k := newKeeping(t)
	if o := k.Outside(); o.Secret != nil || o.ConfigMap != nil || o.Namespace != "" {
		t.Errorf("%+v", o)
	}
	before := k.Turn()
	k.SetCluster(cluster{"a/b": "x"})
	k.turned(before, true)
	data, err := k.Outside().Secret("a", "b")
	texts, err2 := k.Outside().ConfigMap("a", "b")
	if string(data["cosign.pub"]) != "x" || texts["key"] != "x" || err != nil || err2 != nil || k.Outside().Namespace != "gatehouse-system" {
		t.Error(data, texts, err, err2)
	}
}
