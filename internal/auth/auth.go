// Package auth answers who somebody is and what they may do. It knows local
// accounts with bcrypt passwords, which come in by HTTP Basic authentication;
// every other way of coming in is a later room on the same floor.
//
// It never decides about images, and it never writes a password anywhere but
// into the one file that a first start leaves for its operator.
package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/singleflight"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Options tune an [Auth]. The zero value is right, and closed.
type Options struct {
	AnonymousPull bool             // whoever has no name may read
	Realm         string           // of the Basic challenge; "Gatehouse" by default
	Now           func() time.Time // the clock; time.Now by default
	Cost          int              // of bcrypt for new passwords; 10 by default
}

// Auth is safe for concurrent use.
type Auth struct {
	db    *db.DB
	opts  Options
	dummy string // a hash that no password has

	key     [32]byte // of the HMAC under which credentials are remembered, this process only
	cache   cache
	limits  limiter
	flights singleflight.Group
	gate    gate
	origins http.CrossOriginProtection

	mu      sync.Mutex
	initial string // path of initial-admin-password; guarded by mu
}

// New returns an Auth over the accounts in d.
func New(d *db.DB, opts Options) *Auth {
	if opts.Realm == "" {
		opts.Realm = "Gatehouse"
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Cost == 0 {
		opts.Cost = bcrypt.DefaultCost
	}
	a := &Auth{db: d, opts: opts, dummy: dummyHash(opts.Cost)}
	rand.Read(a.key[:])
	a.gate.slots = make(chan struct{}, runtime.GOMAXPROCS(0))
	return a
}

const (
	// NameLengthMax is the longest account name in bytes.
	NameLengthMax = 128
	// passwordLengthMax is bcrypt's own: what lies beyond would not count.
	passwordLengthMax = 72
	// PasswordLengthMin binds passwords that people choose.
	PasswordLengthMin = 8
)

// Verify checks a name and password that came from addr. A password that was
// right a moment ago is answered from memory; everything else costs one bcrypt,
// whether the account exists or not, and one attempt out of a few.
// Errors: CodeDenied with detail UNAUTHORIZED, CodeTooMany, CodeUnavailable.
func (a *Auth) Verify(ctx context.Context, name, password, addr string) (gatehouse.Actor, error) {
	key := a.remember(name, password)
	now := a.opts.Now()
	if actor, ok := a.cache.get(key, now); ok {
		actor.Addr = addr
		return actor, nil
	}
	// Many requests with the same credentials arrive together when a node
	// starts: one of them pays. It must not fail because that one's client left.
	work := a.flights.DoChan(string(key[:]), func() (any, error) {
		return a.verifySlowly(context.WithoutCancel(ctx), key, name, password, addr)
	})
	select {
	case <-ctx.Done():
		return gatehouse.Actor{}, ctx.Err()
	case r := <-work:
		if r.Err != nil {
			return gatehouse.Actor{}, r.Err
		}
		actor := r.Val.(gatehouse.Actor)
		actor.Addr = addr
		return actor, nil
	}
}

func (a *Auth) verifySlowly(ctx context.Context, key cacheKey, name, password, addr string) (gatehouse.Actor, error) {
	now := a.opts.Now()
	if actor, ok := a.cache.get(key, now); ok { // put there while this one was on its way
		return actor, nil
	}
	refund, wait := a.limits.take(name, addr, now)
	if wait > 0 {
		return gatehouse.Actor{}, tooMany(wait)
	}
	actor, generation := gatehouse.Actor{}, a.cache.generation()
	if err := a.gate.enter(); err != nil {
		refund()
		return actor, err
	}
	defer a.gate.leave()
	hash, found := a.dummy, db.Account{}
	err := a.db.Read(ctx, func(tx *db.Tx) (err error) {
		if !plausible(name) {
			return nil
		}
		found, err = tx.Account(ctx, name)
		return err
	})
	switch gatehouse.CodeOf(err) {
	case "", gatehouse.CodeNotFound:
	default:
		refund()
		return actor, err
	}
	if found.Password != "" && len(password) <= passwordLengthMax {
		hash = found.Password
	}
	if !matches(hash, password) || hash == a.dummy {
		return actor, wrongCredentials()
	}
	refund()
	actor = gatehouse.Actor{Name: found.Name, Source: "local", Admin: found.Admin}
	a.cache.put(key, actor, now, generation)
	return actor, nil
}

// plausible reports whether an account could have that name: what no database
// takes as text is not asked for.
func plausible(name string) bool {
	return len(name) <= NameLengthMax && utf8.ValidString(name) && !strings.ContainsRune(name, 0)
}

// remember is the name under which right credentials are kept: useless outside
// of this process.
func (a *Auth) remember(name, password string) cacheKey {
	mac := hmac.New(sha256.New, a.key[:])
	nameSum := sha256.Sum256([]byte(name)) // of fixed length: no name runs into its password
	mac.Write(nameSum[:])
	mac.Write([]byte(password))
	var key cacheKey
	mac.Sum(key[:0])
	return key
}

// wrongCredentials is the same for an unknown name and a wrong password.
func wrongCredentials() error {
	return gatehouse.Errorf(gatehouse.CodeDenied, "wrong user name or password").WithDetail("UNAUTHORIZED")
}

// tooManyError tells clients when to come back.
type tooManyError struct{ wait time.Duration }

func (e tooManyError) Error() string             { return "too many failed attempts" }
func (e tooManyError) RetryAfter() time.Duration { return e.wait }

func tooMany(wait time.Duration) error {
	return &gatehouse.Error{Code: gatehouse.CodeTooMany, Message: "too many failed logins from this address",
		Hint: "wait a moment, then check the password", Detail: "TOOMANYREQUESTS", Err: tooManyError{wait}}
}
