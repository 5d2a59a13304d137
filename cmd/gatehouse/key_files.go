package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

const passwordMax = 4 << 10 // bytes

func (a *app) writeKeyPair(f keyPairFlags, generate func() (sign.KeyPair, error)) error {
	private, public := f.prefix+".key", f.prefix+".pub"
	replace, err := a.mayOverwrite(f.yes, private, public)
	if err != nil {
		return err
	}
	pair, err := generate()
	if err != nil {
		return err
	}
	if err := writeFile(private, pair.Private, 0o600, replace); err != nil {
		return err
	}
	a.say("Private key written to %s", private)
	return a.writePublic(public, pair.Public, replace)
}

func (a *app) writePublic(path string, public []byte, replace bool) error {
	if err := writeFile(path, public, 0o644, replace); err != nil {
		return err
	}
	a.say("Public key written to %s", path)
	return nil
}

// mayOverwrite asks before a key is lost: what it has signed stays verifiable,
// but nothing can be signed with it any more. replace says that what is there may
// go; without it, what comes to be there while the person types is kept too.
func (a *app) mayOverwrite(yes bool, paths ...string) (replace bool, err error) {
	replace = yes
	for _, p := range paths {
		if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) || yes {
			continue
		} else if err != nil {
			return false, err
		}
		if _, ok := a.terminal(); !ok {
			return false, exists(p)
		}
		if err := a.confirm(fmt.Sprintf("File %s exists.", p), p); err != nil {
			return false, err
		}
		replace = true
	}
	return replace, nil
}

func exists(path string) error {
	return gatehouse.Errorf(gatehouse.CodeConflict, "%s exists", path).
		WithHint("choose another name with --output-key-prefix, or overwrite it with --yes")
}

// confirm asks the person at the terminal.
func (a *app) confirm(what, name string) error {
	fmt.Fprintf(a.stderr, "%s Overwrite? (y/N) ", what)
	answer := make([]byte, 16)
	n, err := a.stdin.Read(answer)
	if err != nil && err != io.EOF {
		return err
	}
	if s := strings.ToLower(strings.TrimSpace(string(answer[:n]))); s != "y" && s != "yes" {
		return gatehouse.Errorf(gatehouse.CodeConflict, "%s exists and was kept", name)
	}
	return nil
}

// writeFile writes path whole or not at all, and over what is there only where
// replace is set.
func writeFile(path string, content []byte, mode os.FileMode, replace bool) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".gatehouse-*")
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil && !replace {
		switch err := os.Link(f.Name(), path); { // unlike a rename, it replaces nothing
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrExist):
			return exists(path)
		} // else a file system without links: the look before has to do
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write %s: %w", path, err)
	}
	return nil
}

// terminal returns standard input where a person sits at it.
func (a *app) terminal() (*os.File, bool) {
	f, ok := a.stdin.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// password takes the key's password from COSIGN_PASSWORD (set and empty counts,
// as with cosign), from a person, or from standard input without the line's
// end.
func (a *app) password(confirm bool) ([]byte, error) {
	if p := a.getenv("COSIGN_PASSWORD"); p != "" {
		return []byte(p), nil
	}
	if _, set := os.LookupEnv("COSIGN_PASSWORD"); set {
		return nil, nil
	}
	f, ok := a.terminal()
	if !ok {
		b, err := io.ReadAll(io.LimitReader(a.stdin, passwordMax+1))
		if err == nil && len(b) > passwordMax {
			err = gatehouse.Errorf(gatehouse.CodeTooLarge, "the password on standard input is longer than %d bytes", passwordMax)
		}
		return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")), err
	}
	first, err := a.ask(f, "Enter password for private key: ")
	if err != nil || !confirm {
		return first, err
	}
	second, err := a.ask(f, "Enter password for private key again: ")
	if err == nil && !bytes.Equal(first, second) {
		err = gatehouse.Errorf(gatehouse.CodeInvalid, "the passwords differ")
	}
	return first, err
}

func (a *app) ask(f *os.File, prompt string) ([]byte, error) {
	fmt.Fprint(a.stderr, prompt)
	p, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.stderr)
	return p, err
}
