package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
	"github.com/gatehouse-dev/gatehouse/internal/tlog/witness"
)

// sigstoreCmd holds the commands of a private Sigstore.
func (a *app) sigstoreCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "sigstore",
		Short: "a Sigstore of your own: look at it, watch it, take it along",
		Long: `A server with "sigstore: true" is a certificate authority, a transparency log, a
timestamp authority and the TUF repository that tells stock clients about them.
These commands prove that its log is what it was. docs/sigstore-log.md says how.`,
		Example: `  gatehouse sigstore status --log-key log.key
  gatehouse sigstore witness --log https://registry.example/log --log-key log.key --state /var/lib/witness
  gatehouse sigstore export DIR --log-key log.key`,
	})
	cmd.AddCommand(a.sigstoreInitCmd(), a.sigstoreStatusCmd(), a.sigstoreRotateCmd(), a.sigstoreWitnessCmd(), a.sigstoreExportCmd())
	return cmd
}

// sigstorePart is what one service of the private Sigstore tells about itself.
type sigstorePart struct {
	name  string   // of the field in JSON
	doc   any      // for machines
	rows  []string // for people: "Title:\tvalue"
	notes []string // for people, on standard error
	wrong string   // why the answer is no; empty: it is yes
}

// sigstoreParts are asked in this order.
func (a *app) sigstoreParts() []func(context.Context, sigstoreQuery) (sigstorePart, error) {
	return []func(context.Context, sigstoreQuery) (sigstorePart, error){a.logStatus}
}

// sigstoreQuery are the flags that say which log is meant and how it is known.
type sigstoreQuery struct {
	asking
	log         string // URL or directory
	keys        []string
	trustedRoot string
	witnesses   []string // public keys
	all         bool
}

func (q *sigstoreQuery) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&q.server, "server", "http://127.0.0.1:5000", "the server (URL)")
	cmd.Flags().StringVar(&q.log, "log", "", "the log: its URL, or a directory that was exported (default: /log of the server)")
	cmd.Flags().StringArrayVar(&q.keys, "log-key", nil, "public key of the log: name+hash+key, or a file with that or with PEM; may be repeated")
	cmd.Flags().StringVar(&q.trustedRoot, "trusted-root", "", "take the key of the log from this trusted_root.json")
	cmd.MarkFlagsMutuallyExclusive("log-key", "trusted-root")
}

func (a *app) sigstoreStatusCmd() *cobra.Command {
	var q sigstoreQuery
	cmd := &cobra.Command{
		Use:   "status",
		Short: "tell how the log stands, and prove that it goes on from what this machine saw last",
		Long: `Reads the newest checkpoint of the log, checks its signature, and proves from the
log's own tiles that its tree begins with the one that this machine saw last. The
answer is no, and the exit code 1, where it does not: then the log has been
rewritten, and the two signed checkpoints that show it are kept.`,
		Example: `  gatehouse sigstore status --log-key log.key
  gatehouse sigstore status --server https://registry.example --trusted-root trusted_root.json
  gatehouse sigstore status --log-key log.key --witness-key witness.example/w1+5d…+BH…
  gatehouse sigstore status --log DIR --all --log-key log.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sigstoreStatus(cmd.Context(), q) },
	}
	q.bind(cmd)
	cmd.Flags().StringVar(&q.format, "format", "table", "table or json")
	cmd.Flags().StringArrayVar(&q.witnesses, "witness-key", nil, "public key of a witness that must have cosigned; may be repeated")
	cmd.Flags().BoolVar(&q.all, "all", false, "read every entry, and prove that they give the tree")
	return cmd
}

func (a *app) sigstoreStatus(ctx context.Context, q sigstoreQuery) error {
	if q.format != "table" && q.format != "json" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "format %q is unknown", q.format).WithHint("use table or json")
	}
	docs := map[string]any{}
	var rows, wrong []string
	for _, ask := range a.sigstoreParts() {
		part, err := ask(ctx, q)
		if err != nil {
			return err
		}
		docs[part.name] = part.doc
		rows = append(rows, part.rows...)
		for _, note := range part.notes {
			fmt.Fprintln(a.stderr, note)
		}
		if part.wrong != "" {
			wrong = append(wrong, part.wrong)
		}
	}
	if err := a.show(q.asking, docs, func() error { return a.columns(rows...) }); err != nil {
		return err
	}
	if len(wrong) > 0 {
		return answerNo{code: 1, message: strings.Join(wrong, "; ")}
	}
	return nil
}

// logDoc is what is told of a log, as JSON.
type logDoc struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"` // base64
	// PublishedAt is when the checkpoint came out, as the server says.
	PublishedAt time.Time `json:"publishedAt,omitzero"`
	Consistent  bool      `json:"consistent"`
	Reason      string    `json:"reason,omitempty"`
	// SeenSize is the size of the tree that this machine saw last; absent the first time.
	SeenSize *int64        `json:"seenSize,omitempty"`
	Cosigned []cosignature `json:"cosigned,omitempty"`
	Checked  bool          `json:"checkedEntries,omitempty"`
}

// cosignature is a witness's line on a checkpoint.
type cosignature struct {
	Witness  string    `json:"witness"`
	At       time.Time `json:"at,omitzero"`
	Verified bool      `json:"verified"` // with a key that was named
}

// staleAfter is when a checkpoint is so old that the log stands still: it comes
// out again each minute.
const staleAfter = 10 * time.Minute

// logStatus is the log's part of the status.
func (a *app) logStatus(ctx context.Context, q sigstoreQuery) (sigstorePart, error) {
	part := sigstorePart{name: "log"}
	from, at, key, signed, err := a.openLog(ctx, q)
	if err != nil {
		return part, err
	}
	dir, err := a.cacheDir()
	if err != nil {
		return part, err
	}
	memory, err := witness.New(filepath.Join(dir, "sigstore", "log"), nil, key)
	if err != nil {
		return part, err
	}
	seen, err := memory.Follow(ctx, fixed{from, signed}, key.Name())
	denied := gatehouse.CodeOf(err) == gatehouse.CodeDenied
	if err != nil && !denied {
		return part, err
	}
	doc := logDoc{
		Origin: key.Name(), Size: seen.Now.Tree.N, Root: base64.StdEncoding.EncodeToString(seen.Now.Tree.Hash[:]),
		PublishedAt: at, Consistent: err == nil,
	}
	var missing string
	var problem error
	if doc.Cosigned, missing, problem = cosigners(signed, key, q.witnesses); problem != nil {
		return part, problem
	}
	if !seen.First {
		doc.SeenSize = &seen.Before.Tree.N
	}
	if err == nil && q.all {
		if err = tlog.Check(ctx, from, seen.Now.Tree); err != nil && gatehouse.CodeOf(err) != gatehouse.CodeDenied {
			return part, err
		}
		doc.Checked, doc.Consistent = err == nil, err == nil
	}
	if err != nil {
		doc.Reason = err.Error()
		part.wrong = "the log is not consistent: " + doc.Reason
		if hint := gatehouse.HintOf(err); hint != "" {
			part.wrong += " (" + hint + ")"
		}
	}
	if part.wrong == "" && missing != "" {
		part.wrong = "the checkpoint is not cosigned by " + missing
	}
	part.doc, part.rows = doc, doc.rows(time.Now())
	if !at.IsZero() && time.Since(at) > staleAfter {
		part.notes = append(part.notes, fmt.Sprintf("warning: the checkpoint came out %s ago; is a server running the log?", time.Since(at).Round(time.Second)))
	}
	return part, nil
}

func (d logDoc) rows(now time.Time) []string {
	age := "unknown"
	if !d.PublishedAt.IsZero() {
		age = fmt.Sprintf("%s (%s ago)", d.PublishedAt.UTC().Format(time.RFC3339), now.Sub(d.PublishedAt).Round(time.Second))
	}
	seen := "this machine sees it for the first time"
	switch {
	case !d.Consistent:
		seen = "NO: " + d.Reason
	case d.SeenSize != nil:
		seen = fmt.Sprintf("yes, with the tree of %d entries that this machine saw last", *d.SeenSize)
	}
	if d.Checked {
		seen += "; every entry was read and is in the tree"
	}
	rows := []string{"Log:\t" + d.Origin, fmt.Sprintf("Entries:\t%d", d.Size), "Root:\t" + d.Root, "Checkpoint:\t" + age, "Consistent:\t" + seen}
	for _, c := range d.Cosigned {
		text := c.Witness + " (not verified: --witness-key names its key)"
		if c.Verified {
			text = c.Witness + " at " + c.At.Format(time.RFC3339)
		}
		rows = append(rows, "Cosigned by:\t"+text)
	}
	return rows
}

// cosigners lists the other signers of a checkpoint, and names those of the given
// keys that are not among them.
func cosigners(signed []byte, key note.Verifier, keys []string) (out []cosignature, missing string, err error) {
	witnesses := map[string]note.Verifier{}
	all := []note.Verifier{key}
	for _, text := range keys {
		v, err := tlog.ParseVerifier(text)
		if err != nil {
			return nil, "", err
		}
		witnesses[v.Name()], all = v, append(all, v)
	}
	n, err := note.Open(signed, note.VerifierList(all...))
	if err != nil {
		return nil, "", gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the cosignatures: %w", err).WithHint("is each --witness-key there once?")
	}
	for _, s := range n.Sigs {
		if at, ok := tlog.CosignedAt(s); ok && witnesses[s.Name] != nil {
			out = append(out, cosignature{s.Name, at, true})
			delete(witnesses, s.Name)
		}
	}
	for _, s := range n.UnverifiedSigs {
		out = append(out, cosignature{Witness: s.Name})
	}
	return out, strings.Join(slices.Sorted(maps.Keys(witnesses)), ", "), nil
}

// fixed is a source at one checkpoint.
type fixed struct {
	tlog.Source
	signed []byte
}

// Checkpoint implements tlog.Source.
func (f fixed) Checkpoint(context.Context) ([]byte, error) { return f.signed, nil }

// openLog opens the log that is meant, and finds the key that has signed its
// checkpoint among those that the flags name. at is when that came out, as the
// source says, or the zero time.
func (a *app) openLog(ctx context.Context, q sigstoreQuery) (from tlog.Source, at time.Time, key note.Verifier, signed []byte, err error) {
	if from, err = a.logSource(q); err != nil {
		return nil, at, nil, nil, err
	}
	keys, err := a.logKeys(q)
	if err != nil {
		return nil, at, nil, nil, err
	}
	if aged, ok := from.(tlog.Aged); ok {
		signed, at, err = aged.CheckpointAt(ctx)
	} else {
		signed, err = from.Checkpoint(ctx)
	}
	if err != nil {
		return nil, at, nil, nil, err
	}
	var errs []error
	for _, k := range keys {
		v, err := k.verifier(signed)
		if err == nil {
			_, _, err = tlog.OpenCheckpoint(signed, v.Name(), v)
		}
		if err == nil {
			return from, at, v, signed, nil
		}
		errs = append(errs, err)
	}
	return nil, at, nil, nil, gatehouse.Errorf(gatehouse.CodeOf(errs[0]), "couldn't trust the log: %w", errors.Join(errs...)).
		WithHint("is this the log that the key belongs to? Ask whoever runs it for the key, by another way than the log")
}

// logSource is where the log is read.
func (a *app) logSource(q sigstoreQuery) (tlog.Source, error) {
	if q.directory() {
		return tlog.Dir(q.log), nil
	}
	base := q.log
	if base == "" {
		base = strings.TrimSuffix(q.server, "/") + "/log"
	}
	c, err := a.client(base)
	if err != nil {
		return nil, err
	}
	return tlog.HTTP{Base: c.base.String(), Client: c.http}, nil
}

func (a *app) sigstoreExportCmd() *cobra.Command {
	var q sigstoreQuery
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "copy the whole log into a directory, proving it on the way",
		Long: `Copies the log as static files, laid out as c2sp.org/tlog-tiles has it: any web
server can serve the directory, and "gatehouse sigstore status --log DIR" checks it
without a network. Every entry is read, and the tree that they give must be the one
that the log has signed. The next export into the same directory reads what is new,
and proves that the log still begins with what was copied.`,
		Example: `  gatehouse sigstore export ./log --log-key log.key
  gatehouse sigstore export /backup/log --server https://registry.example --trusted-root trusted_root.json
  gatehouse sigstore status --log ./log --all --log-key log.key`,
		Args: oneDirectory,
		RunE: func(cmd *cobra.Command, args []string) error {
			from, _, key, _, err := a.openLog(cmd.Context(), q)
			if err != nil {
				return err
			}
			c, err := tlog.Copy(cmd.Context(), from, tlog.Dir(args[0]), key, nil)
			if gatehouse.CodeOf(err) == gatehouse.CodeDenied {
				return answerNo{code: 1, message: "the log is not consistent: " + err.Error()}
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s: %d entries of %s, root %s\n", args[0], c.Tree.N, c.Origin, base64.StdEncoding.EncodeToString(c.Tree.Hash[:]))
			return nil
		},
	}
	q.bind(cmd)
	return cmd
}

func oneDirectory(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%d directories are named", len(args)).WithHint("name the one that the log goes to")
	}
	return nil
}
