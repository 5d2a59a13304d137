package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

const (
	keyFileMax  = 64 << 10 // bytes
	passwordMax = 4 << 10  // bytes
)

// generateKeyPairCmd is `gatehouse generate-key-pair`.
func (a *app) generateKeyPairCmd() *cobra.Command {
	var prefix string
	var yes bool
	cmd := &cobra.Command{
		Use:   "generate-key-pair",
		Short: "make a key pair to sign images with",
		Long: `Generate-key-pair writes cosign.key, encrypted with a password, and cosign.pub.
Both are cosign's own formats: either program can use the other's keys. The
password is asked for, or taken from COSIGN_PASSWORD or standard input.`,
		Example: `  gatehouse generate-key-pair
  COSIGN_PASSWORD=secret gatehouse generate-key-pair --output-key-prefix release`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.writeKeyPair(prefix, yes, sign.GenerateKeyPair)
		},
	}
	bindKeyPair(cmd, &prefix, "cosign", &yes)
	return cmd
}

// importKeyPairCmd is `gatehouse import-key-pair`.
func (a *app) importKeyPairCmd() *cobra.Command {
	var prefix, from string
	var yes bool
	cmd := &cobra.Command{
		Use:   "import-key-pair --key FILE",
		Short: "make a key pair of a private key that exists already",
		Long: `Import-key-pair encrypts a private key in PEM (RSA, ECDSA or Ed25519) as
generate-key-pair does and writes import-cosign.key and import-cosign.pub.`,
		Example: `  gatehouse import-key-pair --key openssl.key
  gatehouse import-key-pair --key env://SIGNING_KEY --output-key-prefix release`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if from == "" {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--key is missing").
					WithHint("name the private key: gatehouse import-key-pair --key FILE")
			}
			plain, err := a.readKey(from)
			if err != nil {
				return err
			}
			return a.writeKeyPair(prefix, yes, func(password []byte) (sign.KeyPair, error) {
				return sign.ImportKeyPair(plain, password)
			})
		},
	}
	bindKeyPair(cmd, &prefix, "import-cosign", &yes)
	cmd.Flags().StringVarP(&from, "key", "k", "", "the private key: a PEM file, or env://NAME")
	return cmd
}

func bindKeyPair(cmd *cobra.Command, prefix *string, name string, yes *bool) {
	cmd.Flags().StringVar(prefix, "output-key-prefix", name, "name of the files, without .key and .pub")
	cmd.Flags().StringVarP(prefix, "output-prefix", "o", name, "the same")
	cmd.Flags().Lookup("output-prefix").Hidden = true
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "overwrite files that exist")
}

func (a *app) writeKeyPair(prefix string, yes bool, generate func(password []byte) (sign.KeyPair, error)) error {
	private, public := prefix+".key", prefix+".pub"
	if err := a.mayOverwrite(yes, private, public); err != nil {
		return err
	}
	password, err := a.password(true)
	if err != nil {
		return err
	}
	pair, err := generate(password)
	if err != nil {
		return err
	}
	if err := replaceFile(private, pair.Private, 0o600); err != nil {
		return err
	}
	a.say("Private key written to %s", private)
	if err := replaceFile(public, pair.Public, 0o644); err != nil {
		return err
	}
	a.say("Public key written to %s", public)
	return nil
}

// mayOverwrite asks before a key is lost: what it has signed stays verifiable,
// but nothing can be signed with it any more.
func (a *app) mayOverwrite(yes bool, paths ...string) error {
	for _, p := range paths {
		if _, err := os.Lstat(p); errors.Is(err, os.ErrNotExist) || yes {
			continue
		} else if err != nil {
			return err
		}
		if _, ok := a.terminal(); !ok {
			return gatehouse.Errorf(gatehouse.CodeConflict, "%s exists", p).
				WithHint("choose another name with --output-key-prefix, or overwrite it with --yes")
		}
		fmt.Fprintf(a.stderr, "File %s exists. Overwrite? (y/N) ", p)
		answer := make([]byte, 16)
		n, err := a.stdin.Read(answer)
		if err != nil && err != io.EOF {
			return err
		}
		if s := strings.ToLower(strings.TrimSpace(string(answer[:n]))); s != "y" && s != "yes" {
			return gatehouse.Errorf(gatehouse.CodeConflict, "%s exists and was kept", p)
		}
	}
	return nil
}

// replaceFile writes path whole or not at all.
func replaceFile(path string, content []byte, mode os.FileMode) error {
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

// readKey reads a key from a file or, as env://NAME, from the environment.
func (a *app) readKey(from string) ([]byte, error) {
	if name, ok := strings.CutPrefix(from, "env://"); ok {
		if v := a.getenv(name); v != "" {
			return []byte(v), nil
		}
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: the variable is not set", from)
	}
	if scheme, _, ok := strings.Cut(from, "://"); ok {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: %s is not supported", from, scheme).
			WithHint("give a file or env://NAME")
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the key: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, keyFileMax+1))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the key: %w", err)
	}
	if len(b) > keyFileMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "key %s has more than %d bytes", from, keyFileMax)
	}
	return b, nil
}
