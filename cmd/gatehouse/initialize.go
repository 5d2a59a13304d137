package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tuf"
)

const (
	rootSizeMax = 1 << 20 // bytes of a root.json
	// trustFreshFor is how long what was fetched is used before the mirror is asked
	// again; trustAskedAgain is how long a mirror that did not answer is left alone.
	trustFreshFor   = 24 * time.Hour
	trustAskedAgain = time.Hour
	// trustWait is how long a command waits for a mirror that it can do without.
	trustWait = 10 * time.Second
)

// knownTrust is what initialize leaves for later commands.
type knownTrust struct {
	Mirror        string          `json:"mirror"`
	Root          json.RawMessage `json:"root"` // where the chain of roots began
	TrustedRoot   json.RawMessage `json:"trustedRoot"`
	SigningConfig json.RawMessage `json:"signingConfig,omitempty"`
	FetchedAt     time.Time       `json:"fetchedAt"`
	AskedAt       time.Time       `json:"askedAt"` // the last time that the mirror was asked
	// Expires is until when the mirror vouches for it. Later somebody may be keeping
	// from us that a key is trusted no more.
	Expires time.Time `json:"expires"`
}

// settled reports whether the mirror need not be asked: it said all this lately, or
// has just not answered, and what it said is still good.
func (k *knownTrust) settled(now time.Time) bool {
	lately := func(at time.Time, within time.Duration) bool {
		ago := now.Sub(at) // less than nothing: a clock was wrong, and nothing is known
		return ago >= 0 && ago < within
	}
	return now.Before(k.Expires) && (lately(k.FetchedAt, trustFreshFor) || lately(k.AskedAt, trustAskedAgain))
}

// initializeCmd is `gatehouse initialize --mirror URL --root FILE`.
func (a *app) initializeCmd() *cobra.Command {
	var mirror, root, checksum string
	var staging bool
	var o registryFlags
	cmd := &cobra.Command{
		Use:   "initialize [--mirror https://HOST/tuf --root root.json]",
		Short: "fetch whom to trust from a Sigstore's TUF repository",
		Long: `Initialize fetches from a TUF repository which certificate authority, logs and
timestamp authorities are to be trusted, and where they are. Later commands sign
with them (sign, attest) and verify identities by them (verify,
verify-attestation). They ask the mirror again once a day.

The chain of trust begins with the root that is given. A server of ours has it at
https://HOST/tuf/1.root.json; compare its sha256 with what ` + "`gatehouse sigstore status`" + `
says there. Without --mirror and --root it is the public Sigstore's.`,
		Example: `  gatehouse initialize --mirror https://registry.example/tuf --root root.json
  gatehouse initialize --mirror https://registry.example/tuf --root https://registry.example/tuf/1.root.json --root-checksum 5e88…
  gatehouse initialize`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.within(cmd, &o, func(ctx context.Context) error {
				n, err := o.connect(cmd, a, nil)
				if err != nil {
					return err
				}
				first, mirror, err := a.firstRoot(ctx, n, mirror, root, checksum, staging)
				if err != nil {
					return err
				}
				return a.initialize(ctx, n, mirror, first)
			})
		},
	}
	o.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&mirror, "mirror", "", "URL of the TUF repository (default: the public Sigstore's)")
	f.StringVar(&root, "root", "", "root.json to begin with: a file or a URL")
	f.StringVar(&checksum, "root-checksum", "", "sha256 of --root in hexadecimal")
	f.BoolVar(&staging, "staging", false, "the public Sigstore's repository for tests")
	cmd.MarkFlagsMutuallyExclusive("staging", "mirror")
	return cmd
}

// firstRoot is the root that somebody decides to trust, and the mirror it is of.
func (a *app) firstRoot(ctx context.Context, n *network, mirror, root, checksum string, staging bool) (first []byte, of string, err error) {
	switch {
	case staging && root == "":
		return tuf.StagingRoot(), tuf.StagingMirror, nil
	case staging:
		mirror = tuf.StagingMirror
	case root == "" && (mirror == "" || strings.TrimRight(mirror, "/") == tuf.PublicMirror):
		return tuf.PublicRoot(), tuf.PublicMirror, nil
	case root == "":
		return nil, "", gatehouse.Errorf(gatehouse.CodeInvalid, "--root is missing: what the mirror says is believed because of it").
			WithHint("get 1.root.json from whoever runs %s, by a way that you trust, or give --root %s/1.root.json with --root-checksum", mirror, strings.TrimRight(mirror, "/"))
	case mirror == "":
		mirror = tuf.PublicMirror
	}
	if strings.HasPrefix(root, "https://") || strings.HasPrefix(root, "http://") {
		first, err = fetchSmall(ctx, n.services, root, rootSizeMax)
		if err == nil && checksum == "" {
			a.say("warning: --root is taken from the network and not compared with anything; its sha256 is %s, give it as --root-checksum the next time", gatehouse.DigestOf(first).Hex())
		}
	} else {
		first, err = a.readInput(root, rootSizeMax)
	}
	if err != nil {
		return nil, "", err
	}
	if got := gatehouse.DigestOf(first).Hex(); checksum != "" && !strings.EqualFold(checksum, got) {
		return nil, "", gatehouse.Errorf(gatehouse.CodeDenied, "the root's sha256 is %s, not %s", got, checksum).
			WithHint("do not trust it; ask whoever runs the server for the right one")
	}
	return first, mirror, nil
}

// fetchSmall gets what is at a URL that a person named.
func fetchSmall(ctx context.Context, rt http.RoundTripper, at string, max int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%w", err)
	}
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, max+1))
	switch {
	case err != nil:
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s: %w", at, err)
	case resp.StatusCode != http.StatusOK:
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s answers HTTP %d", at, resp.StatusCode)
	case int64(len(body)) > max:
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", at, max)
	}
	return body, nil
}

// trustDir is where initialize keeps what it fetched.
func (a *app) trustDir() (string, error) {
	dir, err := a.cacheDir()
	if err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "neither XDG_CACHE_HOME nor HOME is set").WithHint("set one of them")
	}
	return filepath.Join(dir, "sigstore"), nil
}

func (a *app) initialize(ctx context.Context, n *network, mirror string, root []byte) error {
	dir, err := a.trustDir()
	if err != nil {
		return err
	}
	// Metadata of another mirror prove nothing about this one. What is there is kept
	// until the new one has proven itself.
	next := dir + ".new"
	defer os.RemoveAll(next)
	if err := os.RemoveAll(next); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't clear %s: %w", next, err)
	}
	if err := os.MkdirAll(next, 0o700); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't make %s: %w", next, err)
	}
	k := &knownTrust{Mirror: mirror, Root: root}
	if err := a.fetchTrust(ctx, n, next, k); err != nil {
		return err
	}
	if err = os.RemoveAll(dir); err == nil {
		err = os.Rename(next, dir)
	}
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't replace %s: %w", dir, err)
	}
	a.done("Trust of %s is kept in %s", mirror, dir)
	a.done("Identities are verified by it from now on: gatehouse verify --certificate-identity … --certificate-oidc-issuer … IMAGE")
	if k.SigningConfig == nil {
		a.done("The repository has no signing config: to sign without a key, say where the services are with --fulcio-url, --rekor-url and --timestamp-server-url")
	}
	return nil
}

func (a *app) fetchTrust(ctx context.Context, n *network, dir string, k *knownTrust) error {
	got, err := tuf.Client{Mirror: k.Mirror, Root: k.Root, Transport: n.services, Dir: filepath.Join(dir, "tuf")}.Fetch(ctx)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	k.TrustedRoot, k.SigningConfig, k.FetchedAt, k.AskedAt, k.Expires = got.TrustedRoot, got.SigningConfig, now, now, got.Expires
	return k.write(dir)
}

func (k *knownTrust) write(dir string) error {
	b, err := json.Marshal(k)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the TUF repository's documents are not JSON: %w", err)
	}
	return writeOut(filepath.Join(dir, "trust.json"), b, 0o600)
}

// initialized is what initialize has left, not older than a day where the mirror
// can be reached, and never older than the mirror vouches for; nil where nothing was
// left. n is nil to ask nobody and take it as it is.
func (a *app) initialized(ctx context.Context, n *network) (*knownTrust, error) {
	dir, err := a.trustDir()
	if err != nil {
		return nil, nil // nowhere to have left anything
	}
	b, err := a.readInput(filepath.Join(dir, "trust.json"), 4*trustFileMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var k knownTrust
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "what `gatehouse initialize` left cannot be read: %w", err).WithHint("run `gatehouse initialize` again")
	}
	now := time.Now()
	if n == nil || k.settled(now) {
		return &k, nil
	}
	ctx, cancel := context.WithTimeout(ctx, trustWait)
	defer cancel()
	switch err := a.fetchTrust(ctx, n, dir, &k); {
	case err == nil:
	case gatehouse.CodeOf(err) == gatehouse.CodeUnavailable && !now.Before(k.Expires):
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "whom to trust is as of %s, and %s vouched for it until %s only: %w",
			k.FetchedAt.Format(time.RFC3339), k.Mirror, k.Expires.Format(time.RFC3339), err).
			WithHint("find out why the mirror does not answer: somebody may be hiding that a key is trusted no more. verify --offline goes on without it, sign --use-signing-config=false with services that are named")
	case gatehouse.CodeOf(err) == gatehouse.CodeUnavailable:
		a.say("note: %s does not answer; whom to trust is as of %s", k.Mirror, k.FetchedAt.Format(time.RFC3339))
		k.AskedAt = now.UTC()
		_ = k.write(dir) // else it is asked again the next time
	default: // it answers, and what it says must not be believed
		return nil, err
	}
	return &k, nil
}
