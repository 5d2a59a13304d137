package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Account is one local account.
type Account struct {
	Name      string
	Password  string // bcrypt
	Admin     bool
	CreatedAt time.Time
	UpdatedAt time.Time // equals CreatedAt until the password is changed
}

const accountColumns = `name, password, admin, created_at, updated_at`

func scanAccount(row interface{ Scan(...any) error }) (Account, error) {
	var a Account
	var admin int
	var created, updated int64
	if err := row.Scan(&a.Name, &a.Password, &admin, &created, &updated); err != nil {
		return Account{}, err
	}
	a.Admin, a.CreatedAt, a.UpdatedAt = admin != 0, fromMicros(created), fromMicros(updated)
	return a, nil
}

// Account returns one account. CodeNotFound: there is none of that name.
func (t *Tx) Account(ctx context.Context, name string) (Account, error) {
	a, err := scanAccount(t.tx.QueryRowContext(ctx, `SELECT `+accountColumns+` FROM account WHERE name = $1`, name))
	if none(err) {
		return Account{}, notFound("", "there is no account %q", name)
	}
	if err != nil {
		return Account{}, unavailable(err)
	}
	return a, nil
}

// Admin returns the administrator that was created first. CodeNotFound: there
// is none.
func (t *Tx) Admin(ctx context.Context) (Account, error) {
	a, err := scanAccount(t.tx.QueryRowContext(ctx, `SELECT `+accountColumns+` FROM account WHERE admin <> 0 ORDER BY created_at, name LIMIT 1`))
	if none(err) {
		return Account{}, notFound("", "there is no administrator")
	}
	if err != nil {
		return Account{}, unavailable(err)
	}
	return a, nil
}

// AddAccount adds an account with its audit record. added is false where the
// name is taken; nothing has changed then.
func (t *Tx) AddAccount(ctx context.Context, actor gatehouse.Actor, a Account) (added bool, err error) {
	admin := 0
	if a.Admin {
		admin = 1
	}
	n, err := affected(t.tx.ExecContext(ctx, `INSERT INTO account (`+accountColumns+`) VALUES ($1, $2, $3, $4, $4) ON CONFLICT (name) DO NOTHING`,
		a.Name, a.Password, admin, micros(t.now)))
	if err != nil || n == 0 {
		return false, err
	}
	return true, t.AddAudit(ctx, actor, "account.create", a.Name, "")
}

// SetPassword replaces the password (bcrypt) of an account, with its audit
// record. CodeNotFound: there is none of that name.
func (t *Tx) SetPassword(ctx context.Context, actor gatehouse.Actor, name, password string) error {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE account SET password = $1, updated_at = $2 WHERE name = $3`,
		password, micros(t.now), name))
	if err != nil {
		return err
	}
	if n == 0 {
		return notFound("", "there is no account %q", name)
	}
	return t.AddAudit(ctx, actor, "account.password", name, "")
}
