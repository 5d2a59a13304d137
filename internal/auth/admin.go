package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

const (
	// AdminName is the account that a first start creates.
	AdminName = "admin"
	// InitialPasswordFile holds its password in the data directory until that
	// is changed.
	InitialPasswordFile = "initial-admin-password"
)

// EnsureAdmin creates the administrator where there is none yet. Its password
// is the given one, which nobody needs to be told; or, where that is empty, a
// random one, which is returned and kept in dataDir (mode 0600) until it is
// changed. The caller shows it once, and to a terminal only.
func (a *Auth) EnsureAdmin(ctx context.Context, dataDir, given string) (created bool, password string, err error) {
	path := filepath.Join(dataDir, InitialPasswordFile)
	a.mu.Lock()
	a.initial = path
	a.mu.Unlock()
	var admin db.Account
	err = a.db.Read(ctx, func(tx *db.Tx) (err error) { admin, err = tx.Admin(ctx); return err })
	switch gatehouse.CodeOf(err) {
	case "":
		if admin.UpdatedAt.After(admin.CreatedAt) {
			return false, "", a.removeInitial() // we stopped between the change and this
		}
		return false, "", nil
	case gatehouse.CodeNotFound:
	default:
		return false, "", err
	}
	choice := given
	if given == "" {
		password = rand.Text()
		choice = password
	}
	hash, err := a.hash(choice)
	if err != nil {
		return false, "", err
	}
	// The file comes first: an account whose password nobody knows is worse
	// than a file that opens nothing, which the next start writes anew.
	if given == "" {
		if err := writeSecret(path, password+"\n"); err != nil {
			return false, "", fmt.Errorf("couldn't keep the administrator's password: %w", err)
		}
	}
	err = a.db.Write(ctx, func(tx *db.Tx) (err error) {
		created, err = tx.AddAccount(ctx, gatehouse.System("auth"), db.Account{Name: AdminName, Password: hash, Admin: true})
		return err
	})
	if err != nil || !created { // another replica was faster
		if given == "" {
			err = errors.Join(err, a.removeInitial())
		}
		return false, "", err
	}
	return true, password, nil
}

// writeSecret writes a file that only its owner can read, whole or not at all.
func writeSecret(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.WriteString(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
