package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// ChangePassword gives account name a new password. An administrator may change
// any; everybody else their own, and only with the old one. What was remembered
// of the old one in this process is forgotten before it returns, and the file
// initial-admin-password goes when the administrator's password does.
// Errors: CodeDenied, CodeInvalid, CodeNotFound, CodeTooMany, CodeUnavailable.
func (a *Auth) ChangePassword(ctx context.Context, actor gatehouse.Actor, name, old, password string) error {
	switch {
	case actor.Anonymous():
		return gatehouse.Errorf(gatehouse.CodeDenied, "authentication required").WithDetail("UNAUTHORIZED")
	case actor.Name == name && actor.Source == "local":
		if _, err := a.Verify(ctx, name, old, actor.Addr); err != nil {
			if gatehouse.CodeOf(err) == gatehouse.CodeDenied {
				return gatehouse.Errorf(gatehouse.CodeDenied, "the old password is wrong")
			}
			return err
		}
	case !actor.Admin:
		return gatehouse.Errorf(gatehouse.CodeDenied, "%s may not change the password of %s", actor.Name, name)
	}
	if len(password) < PasswordLengthMin {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the password is too short").WithHint("use %d characters or more", PasswordLengthMin)
	}
	hash, err := a.hash(password)
	if err != nil {
		return err
	}
	err = a.db.Write(ctx, func(tx *db.Tx) error { return tx.SetPassword(ctx, actor, name, hash) })
	if err != nil {
		return err
	}
	a.cache.forget()
	if name == AdminName {
		return a.removeInitial()
	}
	return nil
}

// hash makes what is stored of a password. CodeInvalid: bcrypt cannot hold it.
func (a *Auth) hash(password string) (string, error) {
	if password == "" {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the password is empty")
	}
	if len(password) > passwordLengthMax {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the password is longer than %d bytes", passwordLengthMax)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), a.opts.Cost)
	if err != nil {
		return "", fmt.Errorf("couldn't hash a password: %w", err)
	}
	return string(hash), nil
}

func matches(hash, password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
}

// dummyHash is well formed and costs what a real one costs. Its sum is one that
// bcrypt cannot have made but by chance.
func dummyHash(cost int) string {
	return fmt.Sprintf("$2a$%02d$%s", cost, "Ga.teHouse.Ga.teHouse.Ga.teHouse.Ga.teHouse.Ga.teHous")
}

func (a *Auth) removeInitial() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.initial == "" {
		return nil
	}
	if err := os.Remove(a.initial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the password was changed, but the old one's file is still there: %w", err)
	}
	return nil
}
