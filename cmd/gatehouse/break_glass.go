package main

import (
	"cmp"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
)

func (a *app) breakGlassCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:     "break-glass",
		Aliases: []string{"breakglass"},
		Short:   "tokens that let an image run once in spite of the policies",
		Long: `A token lets one user of the cluster run one image (by digest) in one namespace,
once, until it expires, in spite of what the policies say. Who made it and why, and
what it was used for, stands in the audit record and in the transparency log. The
object carries the token in its annotation gatehouse.dev/break-glass.
docs/break-glass.md tells the rest.`,
		Example: `  gatehouse break-glass create --namespace shop --image registry.example/app@sha256:4f53… --requester ann@example.com --reason "shop is down, INC-17"
  gatehouse break-glass list
  gatehouse break-glass revoke 7`,
	})
	cmd.AddCommand(a.breakGlassCreateCmd(), a.breakGlassListCmd(), a.breakGlassRevokeCmd())
	return cmd
}

// breakGlassInfo is one token in the server's answers.
type breakGlassInfo struct {
	ID         int64            `json:"id"`
	Token      string           `json:"token,omitempty"` // once
	State      string           `json:"state"`
	Namespace  string           `json:"namespace"`
	Digest     gatehouse.Digest `json:"digest"`
	Requester  string           `json:"requester"`
	Everything bool             `json:"everything"`
	Reason     string           `json:"reason"`
	CreatedBy  string           `json:"createdBy"`
	CreatedAt  time.Time        `json:"createdAt"`
	ExpiresAt  time.Time        `json:"expiresAt"`
	RevokedAt  time.Time        `json:"revokedAt,omitzero"`
	UsedAt     time.Time        `json:"usedAt,omitzero"`
	Decision   string           `json:"decision,omitempty"`
}

// breakGlassAsked asks for a token.
type breakGlassAsked struct {
	Namespace  string `json:"namespace"`
	Image      string `json:"image"`
	Requester  string `json:"requester"`
	Reason     string `json:"reason"`
	TTL        string `json:"ttl"`
	Everything bool   `json:"everything"`
}

func (a *app) breakGlassCreateCmd() *cobra.Command {
	var q asking
	var ask breakGlassAsked
	var ttl time.Duration
	cmd := q.bind(&cobra.Command{
		Use:   "create",
		Short: "make a token; it is shown this once",
		Long: `Makes a token and prints it. Put it into the annotation gatehouse.dev/break-glass of
the object that the requester creates, in which the image is written with its digest;
several tokens are divided by blanks. Pods that a controller makes are requested by
the controller: for those name system:serviceaccount:kube-system:replicaset-controller
and make a token for each.`,
		Example: `  gatehouse break-glass create --namespace shop --image registry.example/app@sha256:4f53… --requester ann@example.com --reason "shop is down, INC-17"
  gatehouse break-glass create --namespace shop --image sha256:4f53… --requester ann@example.com --reason "INC-17" --ttl 15m -q`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ask.TTL = ttl.String()
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			var made breakGlassInfo
			if err := c.post(cmd.Context(), "/api/v1/break-glass", ask, &made); err != nil {
				return err
			}
			return a.show(q, made, func() error {
				a.say("token %d lets %s run %s once in namespace %s until %s; put it into the annotation gatehouse.dev/break-glass",
					made.ID, made.Requester, made.Digest, made.Namespace, made.ExpiresAt.UTC().Format(time.RFC3339))
				_, err := fmt.Fprintln(a.stdout, made.Token)
				return err
			})
		},
	})
	f := cmd.Flags()
	f.StringVarP(&ask.Namespace, "namespace", "n", "", "namespace that it holds in (required)")
	f.StringVar(&ask.Image, "image", "", "the image: NAME@DIGEST, or its digest (required)")
	f.StringVar(&ask.Requester, "requester", "", "user of the cluster who creates the object (required)")
	f.StringVar(&ask.Reason, "reason", "", "why it has to run in spite of the policies (required)")
	f.DurationVar(&ttl, "ttl", time.Hour, "how long the token holds, 24h at most")
	f.BoolVar(&ask.Everything, "everything", false, "also in spite of policies that judge the object and not the image")
	for _, name := range []string{"namespace", "image", "requester", "reason"} {
		_ = cmd.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return cmd
}

func (a *app) breakGlassListCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "list",
		Short: "list tokens, newest first, also those that have ended",
		Example: `  gatehouse break-glass list
  gatehouse break-glass list --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			all, err := askAll[breakGlassInfo](cmd.Context(), c, "/api/v1/break-glass", url.Values{}, "tokens", "before")
			if err != nil {
				return err
			}
			return a.show(q, all, func() error {
				rows := []string{"ID\tSTATE\tNAMESPACE\tIMAGE\tREQUESTER\tBY\tEXPIRES\tDECISION\tREASON"}
				for _, b := range all {
					rows = append(rows, fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", b.ID, b.State, b.Namespace, b.Digest, b.Requester, b.CreatedBy,
						b.ExpiresAt.UTC().Format(time.RFC3339), cmp.Or(b.Decision, "-"), strings.Join(strings.Fields(b.Reason), " ")))
				}
				return a.columns(rows...)
			})
		},
	})
}

func (a *app) breakGlassRevokeCmd() *cobra.Command {
	var q asking
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "end a token that was not used",
		Example: `  gatehouse break-glass revoke 7
  gatehouse break-glass revoke --server https://registry.example 7`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || id <= 0 {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "%q is not the number of a token", args[0]).WithHint("gatehouse break-glass list shows them")
			}
			c, err := a.client(q.server)
			if err != nil {
				return err
			}
			if err := c.do(cmd.Context(), "DELETE", fmt.Sprintf("/api/v1/break-glass/%d", id), nil, nil, nil); err != nil {
				return err
			}
			a.done("revoked token %d", id)
			return nil
		},
	}
	cmd.Flags().StringVar(&q.server, "server", "http://127.0.0.1:5000", "the server (URL)")
	return cmd
}
