package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// asking are the flags of commands that ask a server and print the answer.
type asking struct{ server, format string }

func (q *asking) bind(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&q.server, "server", "http://127.0.0.1:5000", "the server (URL)")
	cmd.Flags().StringVar(&q.format, "format", "table", "table or json")
	return cmd
}

// at is q for a command about image: a registry in front says which server is
// meant unless --server does.
func (q asking) at(cmd *cobra.Command, image string) asking {
	if ref, local, err := gatehouse.ParseLocalRef(image); err == nil && !local && !cmd.Flags().Changed("server") {
		q.server = ref.Registry
	}
	return q
}

// asker makes a client, and checks the format before anything is asked.
func (a *app) asker(q asking) (*client, error) {
	if q.format != "table" && q.format != "json" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "format %q is unknown", q.format).WithHint("use table or json")
	}
	return a.client(q.server)
}

// show prints doc as JSON, or lets table print it to people.
func (a *app) show(q asking, doc any, table func() error) error {
	if q.format == "json" {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(doc)
	}
	return table()
}

// columns prints rows of columns that are divided by tabs.
func (a *app) columns(rows ...string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	return w.Flush()
}

func (a *app) gcCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "gc",
		Short: "garbage collection: what nobody needs any more goes by itself; see, hasten or forbid it",
		Long: `A running server collects garbage all the time, while images are pushed and
pulled. These commands show how that stands, collect at once what is due, tell why
something is kept, and hold what must not go. docs/gc.md says what is collected when.`,
		Example: `  gatehouse gc status
  gatehouse gc run --dry-run
  gatehouse gc explain team/app@sha256:4f53…
  gatehouse gc hold team/app:v1 --reason "case 4711"`,
	})
	cmd.AddCommand(a.gcStatusCmd(), a.gcRunCmd(), a.gcExplainCmd(), a.gcHoldCmd(), a.gcReleaseCmd(), a.gcHoldsCmd())
	return cmd
}

// gcStatus is the server's answer.
type gcStatus struct {
	Due            int64      `json:"due"`
	Waiting        int64      `json:"waiting"`
	OldestDue      *time.Time `json:"oldestDue,omitempty"`
	Next           *time.Time `json:"next,omitempty"`
	Failing        int64      `json:"failing"`
	PendingObjects int64      `json:"pendingObjects"`
	PendingBytes   int64      `json:"pendingBytes"`
	Holds          int64      `json:"holds"`
	Totals         struct {
		Reviewed  int64 `json:"reviewed"`
		Manifests int64 `json:"manifests"`
		Blobs     int64 `json:"blobs"`
		Objects   int64 `json:"objects"`
		Bytes     int64 `json:"bytes"`
	} `json:"totals"`
	LastRun       *time.Time `json:"lastRun,omitempty"`
	KeepsUntagged bool       `json:"keepsUntagged"`
	Grace         float64    `json:"graceSeconds"`
	TagRestore    float64    `json:"tagRestoreSeconds"`
	Tombstone     float64    `json:"tombstoneSeconds"`
}

func (a *app) gcStatusCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "status",
		Short: "tell what waits to be looked at, and what has been collected so far",
		Example: `  gatehouse gc status
  gatehouse gc status --server https://registry.example --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			var s gcStatus
			if err := c.do(cmd.Context(), "GET", "/api/v1/gc", nil, nil, &s); err != nil {
				return err
			}
			return a.show(q, s, func() error {
				at := func(t *time.Time) string {
					if t == nil {
						return "-"
					}
					return t.UTC().Format(time.RFC3339)
				}
				span := func(seconds float64) string {
					return config.FormatDuration(time.Duration(seconds * float64(time.Second)))
				}
				untagged := "collected"
				if s.KeepsUntagged {
					untagged = "kept for ever"
				}
				return a.columns(
					fmt.Sprintf("Reviews due:\t%d, the oldest since %s", s.Due, at(s.OldestDue)),
					fmt.Sprintf("Reviews waiting:\t%d, the next at %s", s.Waiting, at(s.Next)),
					fmt.Sprintf("Reviews failing:\t%d", s.Failing),
					fmt.Sprintf("To be deleted:\t%d objects, %s", s.PendingObjects, bytesText(s.PendingBytes)),
					fmt.Sprintf("Holds:\t%d", s.Holds),
					fmt.Sprintf("Collected so far:\t%d manifests, %d blobs, %s", s.Totals.Manifests, s.Totals.Blobs, bytesText(s.Totals.Bytes)),
					fmt.Sprintf("Last collection:\t%s", at(s.LastRun)),
					fmt.Sprintf("Settings:\tgrace %s, tags restorable %s, bytes stay %s, untagged manifests are %s", span(s.Grace), span(s.TagRestore), span(s.Tombstone), untagged),
				)
			})
		},
	})
}

// gcReport is the server's answer to a run.
type gcReport struct {
	Reviewed  int64 `json:"reviewed"`
	Manifests int64 `json:"manifests"`
	Tags      int64 `json:"tags"`
	Blobs     int64 `json:"blobs"`
	BlobBytes int64 `json:"blobBytes"`
	Objects   int64 `json:"objects"`
	Bytes     int64 `json:"bytes"`
	Failed    int64 `json:"failed"`
	DryRun    bool  `json:"dryRun"`
	Items     []struct {
		Kind   string           `json:"kind"`
		Repo   gatehouse.Repo   `json:"repo,omitempty"`
		Digest gatehouse.Digest `json:"digest"`
		Bytes  int64            `json:"bytes"`
		Reason string           `json:"reason"`
	} `json:"items,omitempty"`
	Truncated bool    `json:"truncated,omitempty"`
	Seconds   float64 `json:"seconds"`
}

func (a *app) gcRunCmd() *cobra.Command {
	var q asking
	var dry, now, yes bool
	cmd := q.bind(&cobra.Command{
		Use:   "run",
		Short: "collect at once what is due; --dry-run lists it",
		Long: `Run collects all that is due. The server does so by itself; run is for those who
need the space now. Nothing waits for it: images are pushed and pulled meanwhile.

--dry-run lists exactly what a run would delete and why. It computes that in a
transaction that it undoes, during which pushes wait, 2 seconds at most.

--ignore-windows takes every waiting time as over: the grace for what was pushed
a short time ago, the time in which a tag can be restored, the delay of the bytes.
Pushes and pulls that are under way can fail, and deleted tags are gone for good.`,
		Example: `  gatehouse gc run --dry-run
  gatehouse gc run --server https://registry.example
  gatehouse gc run --ignore-windows --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if now && !dry && !yes {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--ignore-windows can make pushes fail that are under way, and tags that were deleted can never be restored").
					WithHint("say --yes if that is what you want, or look first with --dry-run")
			}
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			var r gcReport
			stop := a.gcProgress(cmd.Context(), c, dry)
			err = c.post(cmd.Context(), "/api/v1/gc/run", map[string]bool{"dryRun": dry, "ignoreWindows": now, "confirm": yes}, &r)
			stop()
			if err != nil {
				return err
			}
			return a.show(q, r, func() error { return a.printGarbage(r) })
		},
	})
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing, list what would go and why")
	cmd.Flags().BoolVar(&now, "ignore-windows", false, "take every waiting time as over; needs --yes")
	cmd.Flags().BoolVar(&yes, "yes", false, "confirm --ignore-windows")
	return cmd
}

// gcProgress tells every few seconds, until it is stopped, how much is left.
func (a *app) gcProgress(ctx context.Context, c *client, dry bool) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !dry && !a.quiet {
			select {
			case <-ctx.Done():
				return
			case <-time.After(2 * time.Second):
			}
			var s gcStatus
			if c.do(ctx, "GET", "/api/v1/gc", nil, nil, &s) == nil {
				a.say("%d reviews and %d objects (%s) to go", s.Due, s.PendingObjects, bytesText(s.PendingBytes))
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (a *app) printGarbage(r gcReport) error {
	did := "Deleted"
	if r.DryRun {
		did = "Would delete"
		rows := []string{}
		for _, i := range r.Items {
			name := string(i.Digest)
			if i.Repo != "" {
				name = string(i.Repo) + "@" + name
			}
			rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s", i.Kind, name, i.Bytes, i.Reason))
		}
		if len(rows) > 0 {
			if err := a.columns(append([]string{"KIND\tNAME\tBYTES\tREASON"}, rows...)...); err != nil {
				return err
			}
		}
	}
	if r.Truncated {
		a.say("note: there is more; the list ends here")
	}
	if r.Failed > 0 {
		a.say("note: %d reviews failed and will be repeated; the server's log says why", r.Failed)
	}
	_, err := fmt.Fprintf(a.stdout, "%s: %d manifests, %d blobs (%s), %d objects in storage; %s freed\n",
		did, r.Manifests, r.Blobs, bytesText(r.BlobBytes), r.Objects, bytesText(r.Bytes))
	return err
}

func (a *app) gcExplainCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "explain REPOSITORY[:TAG][@DIGEST]",
		Short: "tell why a manifest or blob is kept",
		Long: `Explain shows the way from what keeps a manifest or a blob (a tag, a hold, its age)
to it. It exits with 1 if nothing keeps it: then it will be collected.`,
		Example: `  gatehouse gc explain team/app:v1
  gatehouse gc explain team/app@sha256:4f53…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.asker(q.at(cmd, args[0]))
			if err != nil {
				return err
			}
			var e struct {
				Kind       string           `json:"kind"`
				Repo       gatehouse.Repo   `json:"repo"`
				Digest     gatehouse.Digest `json:"digest"`
				Kept       bool             `json:"kept"`
				Until      *time.Time       `json:"until,omitempty"`
				Path       []string         `json:"path"`
				Review     *time.Time       `json:"review,omitempty"`
				Event      string           `json:"event,omitempty"`
				OtherRepos []gatehouse.Repo `json:"otherRepos,omitempty"`
			}
			if err := c.do(cmd.Context(), "GET", "/api/v1/gc/explain", url.Values{"reference": {args[0]}}, nil, &e); err != nil {
				return err
			}
			err = a.show(q, e, func() error {
				rows := []string{fmt.Sprintf("%s\t%s@%s", strings.ToUpper(e.Kind[:1])+e.Kind[1:]+":", e.Repo, e.Digest)}
				switch {
				case !e.Kept:
					rows = append(rows, "Kept:\tno, nothing needs it")
				case e.Until != nil:
					rows = append(rows, "Kept:\tuntil "+e.Until.UTC().Format(time.RFC3339))
				default:
					rows = append(rows, "Kept:\tyes")
				}
				if len(e.Path) > 0 {
					rows = append(rows, "Because:\t"+strings.Join(e.Path, " -> "))
				}
				if e.Review != nil {
					rows = append(rows, fmt.Sprintf("Next review:\t%s (%s)", e.Review.UTC().Format(time.RFC3339), e.Event))
				}
				if n := len(e.OtherRepos); n > 0 {
					rows = append(rows, fmt.Sprintf("Also in:\t%s (%d)", joinRepos(e.OtherRepos), n))
				}
				return a.columns(rows...)
			})
			if err == nil && !e.Kept {
				return answerNo{code: 1}
			}
			return err
		},
	})
}

func joinRepos(list []gatehouse.Repo) string {
	var out []string
	for _, r := range list {
		out = append(out, string(r))
	}
	return strings.Join(out, ", ")
}

func (a *app) gcHoldCmd() *cobra.Command {
	var q asking
	var reason string
	cmd := q.bind(&cobra.Command{
		Use:   "hold REPOSITORY[:TAG][@DIGEST]",
		Short: "keep a manifest with all that it needs, whoever deletes what",
		Long: `Hold keeps a manifest with its children and blobs until it is released: garbage
collection leaves it and its referrers alone, and deleting it is refused. A tag
names what it points at now; the tag itself may move.`,
		Example: `  gatehouse gc hold team/app:v1 --reason "case 4711"
  gatehouse gc hold team/app@sha256:4f53… --reason "evidence, ask legal@example.com"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.asker(q.at(cmd, args[0]))
			if err != nil {
				return err
			}
			var h hold
			if err := c.post(cmd.Context(), "/api/v1/holds", map[string]string{"reference": args[0], "reason": reason}, &h); err != nil {
				return err
			}
			return a.show(q, h, func() error {
				a.done("held %s@%s", h.Repository, h.Digest)
				return nil
			})
		},
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever finds the hold later (required)")
	return cmd
}

func (a *app) gcReleaseCmd() *cobra.Command {
	var q asking
	cmd := &cobra.Command{
		Use:   "release REPOSITORY[:TAG][@DIGEST]",
		Short: "end a hold",
		Example: `  gatehouse gc release team/app@sha256:4f53…
  gatehouse gc release --server https://registry.example team/app:v1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(q.at(cmd, args[0]).server)
			if err != nil {
				return err
			}
			if err := c.do(cmd.Context(), "DELETE", "/api/v1/holds", url.Values{"reference": {args[0]}}, nil, nil); err != nil {
				return err
			}
			a.done("released %s", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&q.server, "server", "http://127.0.0.1:5000", "the server (URL)")
	return cmd
}

// hold is one hold in the server's answers.
type hold struct {
	Repository gatehouse.Repo   `json:"repository"`
	Digest     gatehouse.Digest `json:"digest"`
	Reason     string           `json:"reason"`
	Actor      string           `json:"actor"`
	CreatedAt  time.Time        `json:"createdAt"`
}

func (a *app) gcHoldsCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "holds [REPOSITORY]",
		Short: "list holds",
		Example: `  gatehouse gc holds
  gatehouse gc holds team/app --format json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			query := url.Values{}
			if len(args) > 0 {
				repo, err := gatehouse.ParseRepo(args[0])
				if err != nil {
					return err
				}
				query.Set("repository", string(repo))
			}
			all, err := askAll[hold](cmd.Context(), c, "/api/v1/holds", query, "holds", "after")
			if err != nil {
				return err
			}
			return a.show(q, all, func() error {
				rows := []string{"IMAGE\tSINCE\tBY\tREASON"}
				for _, h := range all {
					rows = append(rows, fmt.Sprintf("%s@%s\t%s\t%s\t%s", h.Repository, h.Digest, h.CreatedAt.UTC().Format(time.RFC3339), cmp.Or(h.Actor, "-"), oneLine(h.Reason)))
				}
				return a.columns(rows...)
			})
		},
	})
}
