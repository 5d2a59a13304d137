package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// keyPairFlags are what the commands that make keys have in common.
type keyPairFlags struct {
	prefix string
	yes    bool
}

func (f *keyPairFlags) bind(cmd *cobra.Command, name string) {
	cmd.Flags().StringVar(&f.prefix, "output-key-prefix", name, "name of the files, without .key and .pub")
	cmd.Flags().StringVarP(&f.prefix, "output-prefix", "o", name, "the same")
	cmd.Flags().Lookup("output-prefix").Hidden = true
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "overwrite what exists")
}

// generateKeyPairCmd is `gatehouse generate-key-pair`.
func (a *app) generateKeyPairCmd() *cobra.Command {
	var f keyPairFlags
	var algorithm, kms string
	cmd := &cobra.Command{
		Use:   "generate-key-pair [k8s://NAMESPACE/SECRET]",
		Short: "make a key pair to sign images with",
		Long: `Generate-key-pair writes cosign.key, encrypted with a password, and cosign.pub.
Both are cosign's own formats: either program can use the other's keys. The
password is asked for, or taken from COSIGN_PASSWORD or standard input.

With k8s://NAMESPACE/SECRET the private key and its password go into a secret of
the cluster that kubectl would take, and with --kms into a key service, through
the program sigstore-kms-SCHEME on PATH. Only cosign.pub is written then.`,
		Example: `  gatehouse generate-key-pair
  COSIGN_PASSWORD=secret gatehouse generate-key-pair --output-key-prefix release
  gatehouse generate-key-pair --signing-algorithm ecdsa-sha2-384-nistp384
  gatehouse generate-key-pair k8s://ci/signing
  gatehouse generate-key-pair --kms awskms:///alias/release`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case kms != "" && len(args) > 0:
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--kms and %s are two places for one key", args[0])
			case kms != "":
				return a.generateInService(cmd.Context(), f, kms, algorithm)
			case len(args) > 0:
				return a.generateInCluster(cmd.Context(), f, args[0], algorithm)
			}
			return a.writeKeyPair(f, func() (sign.KeyPair, error) {
				pair, _, err := a.newKeyPair(algorithm)
				return pair, err
			})
		},
	}
	f.bind(cmd, "cosign")
	cmd.Flags().StringVar(&algorithm, "signing-algorithm", "", "kind of key: "+strings.Join(sign.Algorithms(), ", ")+
		" (default "+sign.DefaultAlgorithm+"); with --kms a name that the service knows")
	cmd.Flags().StringVar(&kms, "kms", "", "make the key in a key service: SCHEME://…")
	return cmd
}

// newKeyPair asks for a password and makes a key pair that it protects.
func (a *app) newKeyPair(algorithm string) (pair sign.KeyPair, password []byte, err error) {
	key, err := sign.NewPrivateKey(algorithm) // first: nobody types a password for a name that is wrong
	if err != nil {
		return sign.KeyPair{}, nil, err
	}
	if password, err = a.password(true); err != nil {
		return sign.KeyPair{}, nil, err
	}
	pair, err = sign.Seal(key, password)
	return pair, password, err
}

func (a *app) generateInService(ctx context.Context, f keyPairFlags, ref, algorithm string) error {
	replace, err := a.mayOverwrite(f.yes, f.prefix+".pub")
	if err != nil {
		return err
	}
	public, err := keyref.Generate(ctx, ref, algorithm, a.keyOptions())
	if err != nil {
		return err
	}
	return a.writePublic(f.prefix+".pub", public, replace)
}

func (a *app) generateInCluster(ctx context.Context, f keyPairFlags, ref, algorithm string) error {
	if err := keyref.Storable(ref); err != nil {
		return err
	}
	replace, err := a.mayOverwrite(f.yes, f.prefix+".pub")
	if err != nil {
		return err
	}
	pair, password, err := a.newKeyPair(algorithm)
	if err != nil {
		return err
	}
	err = keyref.Store(ctx, ref, pair, password, f.yes, a.keyOptions())
	if _, sits := a.terminal(); sits && gatehouse.CodeOf(err) == gatehouse.CodeConflict && !f.yes {
		if err := a.confirm(ref+" holds a key already.", ref); err != nil {
			return err
		}
		err = keyref.Store(ctx, ref, pair, password, true, a.keyOptions())
	}
	if err != nil {
		return err
	}
	a.say("Private key written to %s", ref)
	return a.writePublic(f.prefix+".pub", pair.Public, replace)
}

// importKeyPairCmd is `gatehouse import-key-pair`.
func (a *app) importKeyPairCmd() *cobra.Command {
	var f keyPairFlags
	var from string
	cmd := &cobra.Command{
		Use:   "import-key-pair --key FILE",
		Short: "make a key pair of a private key that exists already",
		Long: `Import-key-pair encrypts a private key in PEM (RSA, ECDSA or Ed25519; PKCS#1,
SEC 1 or PKCS#8) as generate-key-pair does and writes import-cosign.key and
import-cosign.pub. A key file of cosign is decrypted first, and so moves to the
form of today.`,
		Example: `  gatehouse import-key-pair --key openssl.key
  gatehouse import-key-pair --key env://SIGNING_KEY --output-key-prefix release`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--key is missing").
					WithHint("name the private key: gatehouse import-key-pair --key FILE")
			}
			plain, err := keyref.Read(cmd.Context(), from, a.keyOptions())
			if err != nil {
				return err
			}
			return a.writeKeyPair(f, func() (sign.KeyPair, error) { return a.importKey(plain) })
		},
	}
	f.bind(cmd, "import-cosign")
	cmd.Flags().StringVarP(&from, "key", "k", "", "the private key: a PEM file, or env://NAME")
	return cmd
}

// importKey asks for both passwords of a key that has one; what is not typed is
// the same for both.
func (a *app) importKey(plain []byte) (sign.KeyPair, error) {
	if !sign.Encrypted(plain) {
		if err := sign.Importable(plain); err != nil { // before a password is asked for
			return sign.KeyPair{}, err
		}
		password, err := a.password(true)
		if err != nil {
			return sign.KeyPair{}, err
		}
		return sign.ImportKeyPair(plain, password)
	}
	old, err := a.password(false)
	if err != nil {
		return sign.KeyPair{}, err
	}
	password := old
	if _, sits := a.terminal(); sits {
		if password, err = a.password(true); err != nil {
			return sign.KeyPair{}, err
		}
	}
	return sign.ReencryptKeyPair(plain, old, password)
}

// publicKeyCmd is `gatehouse public-key`.
func (a *app) publicKeyCmd() *cobra.Command {
	var from, to string
	var yes bool
	cmd := &cobra.Command{
		Use:   "public-key --key cosign.key",
		Short: "print the public key of a key pair",
		Long: `Public-key prints the public key that belongs to a private one, wherever that is
kept: a file, env://NAME, k8s://NAMESPACE/SECRET or a key service.`,
		Example: `  gatehouse public-key --key cosign.key
  gatehouse public-key --key awskms:///alias/release --outfile cosign.pub`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--key is missing").
					WithHint("name the key: gatehouse public-key --key cosign.key")
			}
			replace := yes
			if to != "" {
				var err error
				if replace, err = a.mayOverwrite(yes, to); err != nil {
					return err
				}
			}
			public, err := a.publicOf(cmd.Context(), from)
			if err != nil {
				return err
			}
			if to != "" {
				return a.writePublic(to, public, replace)
			}
			_, err = a.stdout.Write(public)
			return err
		},
	}
	cmd.Flags().StringVarP(&from, "key", "k", "", "the key: cosign.key, env://NAME, k8s://NAMESPACE/SECRET or SCHEME://…")
	cmd.Flags().StringVar(&to, "outfile", "", "write it to this file")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "overwrite what exists")
	return cmd
}

func (a *app) publicOf(ctx context.Context, ref string) ([]byte, error) {
	if keyref.Stored(ref) { // no need of the private one
		return keyref.Public(ctx, ref, a.keyOptions())
	}
	key, err := keyref.Signer(ctx, ref, a.keyOptions())
	if err != nil {
		return nil, err
	}
	return key.PublicPEM(), nil
}

// keyOptions let a reference that a person typed reach whatever they can.
func (a *app) keyOptions() keyref.Options {
	return keyref.Options{
		Local: true, Getenv: a.getenv, Password: a.password, Proxies: egress.ProxiesFrom(a.getenv), Stderr: a.stderr,
	}
}

// signingKey finds the private key that --key names.
func (a *app) signingKey(ctx context.Context, ref string) (*sign.Key, error) {
	return keyref.Signer(ctx, ref, a.keyOptions())
}

// publicKey finds the public key that --key names, in PEM.
func (a *app) publicKey(ctx context.Context, ref string) ([]byte, error) {
	return keyref.Public(ctx, ref, a.keyOptions())
}
