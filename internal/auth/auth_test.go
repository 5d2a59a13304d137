package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/auth"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)} }

func openDB(t *testing.T, now func() time.Time) *db.DB {
	t.Helper()
	d := dbtest.At(t, t.TempDir(), db.Options{Now: now})
	t.Cleanup(func() { d.Close() })
	return d
}

// newAuth has the administrator "admin" with the password "correct horse".
func newAuth(t *testing.T, opts auth.Options) (*auth.Auth, *db.DB, *clock) {
	t.Helper()
	c := newClock()
	d := openDB(t, c.Now)
	opts.Now, opts.Cost = c.Now, bcrypt.MinCost
	a := auth.New(d, opts)
	if _, _, err := a.EnsureAdmin(t.Context(), t.TempDir(), "correct horse"); err != nil {
		t.Fatal(err)
	}
	return a, d, c
}

func addUser(t *testing.T, d *db.DB, name, password string) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Write(t.Context(), func(tx *db.Tx) error {
		added, err := tx.AddAccount(t.Context(), gatehouse.System("test"), db.Account{Name: name, Password: string(hash)})
		if err == nil && !added {
			err = fmt.Errorf("account %s exists", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, what string, err error, want gatehouse.Code) {
	t.Helper()
	if got := gatehouse.CodeOf(err); got != want {
		t.Errorf("%s: code %q (%v), want %q", what, got, err, want)
	}
}

func TestVerify(t *testing.T) {
	a, d, _ := newAuth(t, auth.Options{})
	long := strings.Repeat("x", 72)
	addUser(t, d, "long", long)
	tests := []struct {
		name, user, password string
		want                 gatehouse.Code
	}{
		{"right", "admin", "correct horse", ""},
		{"right again, from memory", "admin", "correct horse", ""},
		{"wrong password", "admin", "wrong", gatehouse.CodeDenied},
		{"empty password", "admin", "", gatehouse.CodeDenied},
		{"unknown user", "nobody", "correct horse", gatehouse.CodeDenied},
		{"no user", "", "correct horse", gatehouse.CodeDenied},
		{"another case", "Admin", "correct horse", gatehouse.CodeDenied},
		{"72 bytes", "long", long, ""},
		{"what bcrypt would cut off", "long", long + "y", gatehouse.CodeDenied},
		{"NUL in the name", "admin\x00", "correct horse", gatehouse.CodeDenied},
		{"broken UTF-8 in the name", "admin\xff", "correct horse", gatehouse.CodeDenied},
		{"name and password run together", "admincorrect", " horse", gatehouse.CodeDenied},
		{"name too long", strings.Repeat("a", auth.NameLengthMax+1), "correct horse", gatehouse.CodeDenied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			actor, err := a.Verify(t.Context(), tt.user, tt.password, "192.0.2.1")
			wantCode(t, "Verify", err, tt.want)
			if tt.want == "" {
				want := gatehouse.Actor{Name: tt.user, Source: "local", Admin: tt.user == "admin", Addr: "192.0.2.1"}
				if fmt.Sprint(actor) != fmt.Sprint(want) {
					t.Errorf("actor %+v, want %+v", actor, want)
				}
			} else if !actor.Anonymous() || actor.Admin {
				t.Errorf("refused, and yet the actor is %+v", actor)
			}
		})
	}
	if got := a.Remembered(); got != 2 {
		t.Errorf("%d credentials are remembered, want the two right ones", got)
	}
}

// An unknown account must cost what a known one costs: the hash that it is
// compared with has to be whole, or bcrypt gives up before it has worked.
func TestDummyHashIsWhole(t *testing.T) {
	for _, cost := range []int{bcrypt.MinCost, 6} {
		a := auth.New(openDB(t, time.Now), auth.Options{Cost: cost})
		err := bcrypt.CompareHashAndPassword([]byte(a.Dummy()), []byte("anything"))
		if !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			t.Errorf("comparing with the dummy: %v, want a mismatch", err)
		}
		if got, err := bcrypt.Cost([]byte(a.Dummy())); err != nil || got != cost {
			t.Errorf("the dummy has cost %d (%v), want %d", got, err, cost)
		}
	}
}

func TestChangedPasswordCountsAtOnce(t *testing.T) {
	a, _, _ := newAuth(t, auth.Options{})
	admin, err := a.Verify(t.Context(), "admin", "correct horse", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.ChangePassword(t.Context(), admin, "admin", "correct horse", "battery staple"); err != nil {
		t.Fatal(err)
	}
	_, err = a.Verify(t.Context(), "admin", "correct horse", "")
	wantCode(t, "the old password", err, gatehouse.CodeDenied)
	_, err = a.Verify(t.Context(), "admin", "battery staple", "")
	wantCode(t, "the new password", err, "")
}

// Another replica changes the password: memory believes the old one for
// CacheTTL and no longer.
func TestMemoryEnds(t *testing.T) {
	a, d, c := newAuth(t, auth.Options{})
	if _, err := a.Verify(t.Context(), "admin", "correct horse", ""); err != nil {
		t.Fatal(err)
	}
	other := auth.New(d, auth.Options{Now: c.Now, Cost: bcrypt.MinCost})
	root := gatehouse.System("test")
	if err := other.ChangePassword(t.Context(), root, "admin", "", "battery staple"); err != nil {
		t.Fatal(err)
	}
	c.pass(auth.CacheTTL - time.Second)
	_, err := a.Verify(t.Context(), "admin", "correct horse", "")
	wantCode(t, "before the end", err, "")
	c.pass(time.Second)
	_, err = a.Verify(t.Context(), "admin", "correct horse", "")
	wantCode(t, "after the end", err, gatehouse.CodeDenied)
}

func TestChangePasswordRules(t *testing.T) {
	a, d, _ := newAuth(t, auth.Options{})
	addUser(t, d, "eve", "eve's password")
	addUser(t, d, "bob", "bob's password")
	admin := gatehouse.Actor{Name: "admin", Source: "local", Admin: true}
	eve := gatehouse.Actor{Name: "eve", Source: "local"}
	foreign := gatehouse.Actor{Name: "eve", Source: "oidc"}
	tests := []struct {
		name               string
		actor              gatehouse.Actor
		user, old, changed string
		want               gatehouse.Code
	}{
		{"nobody", gatehouse.Actor{}, "eve", "eve's password", "new password", gatehouse.CodeDenied},
		{"another's", eve, "bob", "bob's password", "new password", gatehouse.CodeDenied},
		{"one's own, old one wrong", eve, "eve", "wrong", "new password", gatehouse.CodeDenied},
		{"the same name from elsewhere", foreign, "eve", "eve's password", "new password", gatehouse.CodeDenied},
		{"too short", eve, "eve", "eve's password", "short", gatehouse.CodeInvalid},
		{"too long", eve, "eve", "eve's password", strings.Repeat("x", 73), gatehouse.CodeInvalid},
		{"one's own", eve, "eve", "eve's password", "new password", ""},
		{"administrator needs no old one", admin, "bob", "", "new password", ""},
		{"administrator's own needs it", admin, "admin", "", "new password", gatehouse.CodeDenied},
		{"no such account", admin, "carol", "", "new password", gatehouse.CodeNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantCode(t, "ChangePassword", a.ChangePassword(t.Context(), tt.actor, tt.user, tt.old, tt.changed), tt.want)
			if tt.want == "" {
				_, err := a.Verify(t.Context(), tt.user, tt.changed, "")
				wantCode(t, "Verify", err, "")
			}
		})
	}
}

func TestFailedLoginsAreLimited(t *testing.T) {
	a, d, c := newAuth(t, auth.Options{})
	addUser(t, d, "bob", "bob's password")
	ctx := t.Context()
	if _, err := a.Verify(ctx, "admin", "correct horse", "192.0.2.9"); err != nil {
		t.Fatal(err)
	}
	for i := range auth.PerAccountBurst {
		_, err := a.Verify(ctx, "admin", fmt.Sprint("guess", i), "192.0.2.1")
		wantCode(t, "a guess", err, gatehouse.CodeDenied)
	}
	_, err := a.Verify(ctx, "admin", "one guess more", "192.0.2.1")
	wantCode(t, "one guess more", err, gatehouse.CodeTooMany)
	var retry interface{ RetryAfter() time.Duration }
	if !errors.As(err, &retry) || retry.RetryAfter() <= 0 || retry.RetryAfter() > auth.PerAccountRefill {
		t.Errorf("the error %v does not tell when to come back", err)
	}
	_, err = a.Verify(ctx, "bob", "bob's password", "192.0.2.1")
	wantCode(t, "another account from there", err, "")
	_, err = a.Verify(ctx, "admin", "correct horse", "192.0.2.1")
	wantCode(t, "the right password from there, remembered", err, "")
	c.pass(auth.CacheTTL)
	_, err = a.Verify(ctx, "admin", "correct horse", "192.0.2.2")
	wantCode(t, "the right password from elsewhere", err, "")
	c.pass(time.Hour)
	_, err = a.Verify(ctx, "admin", "correct horse", "192.0.2.1")
	wantCode(t, "the right password from there, later", err, "")
}

func TestSuccessfulLoginsAreNotLimited(t *testing.T) {
	a, _, c := newAuth(t, auth.Options{})
	for range auth.PerAddressBurst + auth.PerAccountBurst {
		_, err := a.Verify(t.Context(), "admin", "correct horse", "192.0.2.1")
		wantCode(t, "Verify", err, "")
		c.pass(auth.CacheTTL) // so that each of them is a check
	}
	if got := a.Counted(); got != 0 {
		t.Errorf("%d buckets count failures, and there was none", got)
	}
}

func TestSprayingIsLimited(t *testing.T) {
	a, _, _ := newAuth(t, auth.Options{})
	// One owner of a /64 has all of its addresses.
	for i := range auth.PerAddressBurst {
		_, err := a.Verify(t.Context(), fmt.Sprint("user", i), "password", fmt.Sprintf("2001:db8::%x", i))
		wantCode(t, "a guess", err, gatehouse.CodeDenied)
	}
	_, err := a.Verify(t.Context(), "user", "password", "2001:db8::ffff")
	wantCode(t, "from the same network", err, gatehouse.CodeTooMany)
	_, err = a.Verify(t.Context(), "user", "password", "2001:db8:0:1::1")
	wantCode(t, "from another network", err, gatehouse.CodeDenied)
}

func TestManyAtOncePayOnce(t *testing.T) {
	a, _, _ := newAuth(t, auth.Options{})
	var wg sync.WaitGroup
	for range 4 * auth.GateQueueMax {
		wg.Go(func() {
			if _, err := a.Verify(t.Context(), "admin", "correct horse", "192.0.2.1"); err != nil {
				t.Errorf("Verify: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestGateIsBounded(t *testing.T) {
	a, _, _ := newAuth(t, auth.Options{})
	free := a.FillGate()
	_, err := a.Verify(t.Context(), "admin", "correct horse", "192.0.2.1")
	wantCode(t, "a full queue", err, gatehouse.CodeUnavailable)
	free()
	_, err = a.Verify(t.Context(), "admin", "correct horse", "192.0.2.1")
	wantCode(t, "afterwards", err, "")
}

func TestLeavingClientFailsNobodyElse(t *testing.T) {
	a, _, _ := newAuth(t, auth.Options{})
	gone, leave := context.WithCancel(t.Context())
	leave()
	// The one who left may be told so, or be answered; either way the work is
	// not lost for who comes next.
	if _, err := a.Verify(gone, "admin", "correct horse", ""); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("Verify: %v", err)
	}
	if _, err := a.Verify(t.Context(), "admin", "correct horse", ""); err != nil {
		t.Fatalf("Verify: %v", err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	a := auth.New(openDB(t, time.Now), auth.Options{Cost: bcrypt.MinCost})
	a.FillMemory(2*auth.CacheEntriesMax, 2*auth.BucketsMax)
	if got := a.Remembered(); got > auth.CacheEntriesMax {
		t.Errorf("%d credentials remembered, %d at most", got, auth.CacheEntriesMax)
	}
	if got := a.Counted(); got > auth.BucketsMax+1 {
		t.Errorf("%d buckets, %d at most", got, auth.BucketsMax)
	}
}

func TestEnsureAdmin(t *testing.T) {
	c := newClock()
	d, dir := openDB(t, c.Now), t.TempDir()
	file := filepath.Join(dir, auth.InitialPasswordFile)
	a := auth.New(d, auth.Options{Now: c.Now, Cost: bcrypt.MinCost})
	created, password, err := a.EnsureAdmin(t.Context(), dir, "")
	if err != nil || !created || len(password) < 20 {
		t.Fatalf("first start: created %t, %d characters, %v", created, len(password), err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %o, want 0600", file, info.Mode().Perm())
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != password+"\n" {
		t.Errorf("the file holds another password (%v)", err)
	}
	admin, err := a.Verify(t.Context(), "admin", password, "")
	if err != nil || !admin.Admin {
		t.Fatalf("the password does not open: %+v, %v", admin, err)
	}

	again := auth.New(d, auth.Options{Now: c.Now, Cost: bcrypt.MinCost})
	created, second, err := again.EnsureAdmin(t.Context(), dir, "another one")
	if err != nil || created || second != "" {
		t.Errorf("second start: created %t, %q, %v; want nothing", created, second, err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the file went before the password was changed: %v", err)
	}
	c.pass(time.Minute)
	if err := again.ChangePassword(t.Context(), admin, "admin", password, "battery staple"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there after the change: %v", err)
	}

	// Stopped between the change and the removal.
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := auth.New(d, auth.Options{Now: c.Now}).EnsureAdmin(t.Context(), dir, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a start left the outdated file: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left in the data directory: %v, %v", entries, err)
	}
}

func TestEnsureAdminWithGivenPassword(t *testing.T) {
	d, dir := openDB(t, time.Now), t.TempDir()
	a := auth.New(d, auth.Options{Cost: bcrypt.MinCost})
	created, password, err := a.EnsureAdmin(t.Context(), dir, "given")
	if err != nil || !created || password != "" {
		t.Errorf("created %t, %q, %v; want true and nothing to tell", created, password, err)
	}
	if _, err := os.Stat(filepath.Join(dir, auth.InitialPasswordFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a password that its owner knows was written down: %v", err)
	}
	_, err = a.Verify(t.Context(), "admin", "given", "")
	wantCode(t, "Verify", err, "")
}

func TestEnsureAdminInAMissingDirectory(t *testing.T) {
	d := openDB(t, time.Now)
	a := auth.New(d, auth.Options{Cost: bcrypt.MinCost})
	dir := filepath.Join(t.TempDir(), "missing")
	if created, _, err := a.EnsureAdmin(t.Context(), dir, ""); err == nil || created {
		t.Fatalf("created %t, %v; want an error and no account that nobody can use", created, err)
	}
	err := d.Read(t.Context(), func(tx *db.Tx) error { _, err := tx.Admin(t.Context()); return err })
	wantCode(t, "Admin", err, gatehouse.CodeNotFound)
	// The next start mends it.
	if created, _, err := a.EnsureAdmin(t.Context(), t.TempDir(), ""); err != nil || !created {
		t.Errorf("created %t, %v", created, err)
	}
}

func TestAuthenticate(t *testing.T) {
	a, _, _ := newAuth(t, auth.Options{})
	tests := []struct {
		name, header, actor string
		want                gatehouse.Code
	}{
		{"none", "", "", ""},
		{"right", "Basic YWRtaW46Y29ycmVjdCBob3JzZQ==", "admin", ""},
		{"right, scheme in lower case", "basic YWRtaW46Y29ycmVjdCBob3JzZQ==", "admin", ""},
		{"wrong", "Basic YWRtaW46d3Jvbmc=", "", gatehouse.CodeDenied},
		{"empty", "Basic Og==", "", ""},
		{"not base64", "Basic ***", "", gatehouse.CodeDenied},
		{"no colon", "Basic YWRtaW4=", "", gatehouse.CodeDenied},
		{"bearer", "Bearer abc", "", gatehouse.CodeDenied},
		{"only a space", " ", "", gatehouse.CodeDenied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/v2/", nil)
			r.RemoteAddr = "192.0.2.7:1234"
			if tt.header != "" {
				r.Header.Set("Authorization", tt.header)
			}
			r.Header.Set("X-Forwarded-For", "198.51.100.1")
			actor, err := a.Authenticate(r)
			wantCode(t, "Authenticate", err, tt.want)
			if actor.Name != tt.actor {
				t.Errorf("actor %q, want %q", actor.Name, tt.actor)
			}
			if err == nil && actor.Addr != "192.0.2.7" {
				t.Errorf("address %q, want that of the connection", actor.Addr)
			}
		})
	}
}

func TestAllow(t *testing.T) {
	closed := auth.New(openDB(t, time.Now), auth.Options{})
	open := auth.New(openDB(t, time.Now), auth.Options{AnonymousPull: true})
	admin, user, nobody := gatehouse.Actor{Name: "admin", Admin: true}, gatehouse.Actor{Name: "user"}, gatehouse.Actor{}
	tests := []struct {
		action                                string
		closedNobody, openNobody, user, admin bool
	}{
		{"pull", false, true, true, true},
		{"catalog", false, true, true, true},
		{"push", false, false, false, true},
		{"delete", false, false, false, true},
		{"something new", false, false, false, true},
	}
	for _, tt := range tests {
		ctx := t.Context()
		got := []bool{
			closed.Allow(ctx, nobody, tt.action, "a/b"), open.Allow(ctx, nobody, tt.action, "a/b"),
			closed.Allow(ctx, user, tt.action, "a/b"), closed.Allow(ctx, admin, tt.action, "a/b"),
		}
		want := []bool{tt.closedNobody, tt.openNobody, tt.user, tt.admin}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v (nobody closed, nobody open, user, admin)", tt.action, got, want)
		}
	}
	if closed.Allow(t.Context(), gatehouse.Actor{Admin: true}, "push", "a/b") {
		t.Error("an administrator without a name may push")
	}
}

func TestChallenge(t *testing.T) {
	a := auth.New(openDB(t, time.Now), auth.Options{Realm: `a "b" \c`})
	if got, want := a.Challenge(nil, "repository:a:pull"), `Basic realm="a \"b\" \\c", charset="UTF-8"`; got != want {
		t.Errorf("challenge %s, want %s", got, want)
	}
}
