package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
)

func (a *app) tagCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "tag",
		Short: "tags of a server's repositories: where they point and pointed, and back again",
		Long: `A server remembers who moved which tag from what to what and when. A tag that was
moved or deleted can be restored while its manifest is kept (tag-restore, 14 days
unless the server is set otherwise). A registry in front of REPOSITORY says which
server is asked, unless --server does.`,
		Example: `  gatehouse tag list team/app
  gatehouse tag history team/app:v1
  gatehouse tag restore team/app:v1`,
	})
	cmd.AddCommand(a.tagListCmd(), a.tagShowCmd(), a.tagHistoryCmd(), a.tagRestoreCmd(), a.tagDeleteCmd())
	return cmd
}

// tagInfo is one tag in the server's answers.
type tagInfo struct {
	Name      string           `json:"name"`
	Digest    gatehouse.Digest `json:"digest"`
	MediaType string           `json:"mediaType"`
	Size      int64            `json:"size"`
	UpdatedBy string           `json:"updatedBy"`
	UpdatedAt time.Time        `json:"updatedAt"`
}

// tagChange is one change of a tag in the server's answers.
type tagChange struct {
	ID    int64            `json:"id"`
	From  gatehouse.Digest `json:"from,omitempty"`
	To    gatehouse.Digest `json:"to,omitempty"`
	Actor string           `json:"actor"`
	At    time.Time        `json:"at"`
}

// hasTag reports whether a tag stands in a reference; ParseRef adds latest.
func hasTag(s string) bool {
	name, _, _ := strings.Cut(s, "@")
	return strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":")
}

// tagRef reads REPOSITORY:TAG[@DIGEST]. The tag must be there: nobody should
// delete latest by leaving something out.
func tagRef(s string) (gatehouse.Ref, error) {
	ref, _, err := gatehouse.ParseLocalRef(s)
	if err == nil && !hasTag(s) {
		err = gatehouse.Errorf(gatehouse.CodeInvalid, "%q names no tag", s).WithHint("name it as REPOSITORY:TAG")
	}
	return ref, err
}

// tagPath is where the API has a repository's tags.
func tagPath(ref gatehouse.Ref, parts ...string) string {
	return "/api/v1/repositories/" + strings.Join(append([]string{string(ref.Repo), "tags"}, parts...), "/")
}

func (a *app) tagListCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "list REPOSITORY",
		Short: "list the tags of a repository with what they point at",
		Example: `  gatehouse tag list team/app
  gatehouse tag list team/app --server https://registry.example --format json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, _, err := gatehouse.ParseLocalRef(args[0])
			if err == nil && (hasTag(args[0]) || ref.Digest != "") {
				err = gatehouse.Errorf(gatehouse.CodeInvalid, "%q names more than a repository", args[0]).WithHint("gatehouse tag show tells about one tag")
			}
			if err != nil {
				return err
			}
			c, err := a.asker(q.at(cmd, args[0]))
			if err != nil {
				return err
			}
			all, err := askAll[tagInfo](cmd.Context(), c, tagPath(ref), url.Values{}, "tags", "after")
			if err != nil {
				return err
			}
			return a.show(q, all, func() error {
				rows := []string{"TAG\tDIGEST\tMOVED\tBY"}
				for _, t := range all {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s", t.Name, t.Digest, t.UpdatedAt.UTC().Format(time.RFC3339), cmp.Or(t.UpdatedBy, "-")))
				}
				return a.columns(rows...)
			})
		},
	})
}

func (a *app) tagShowCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "show REPOSITORY:TAG",
		Short: "tell what a tag points at, and who signed that",
		Example: `  gatehouse tag show team/app:v1
  gatehouse tag show team/app:v1 --format json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := tagRef(args[0])
			if err != nil {
				return err
			}
			c, err := a.asker(q.at(cmd, args[0]))
			if err != nil {
				return err
			}
			var t tagInfo
			if err := c.do(cmd.Context(), "GET", tagPath(ref, ref.Tag), nil, nil, &t); err != nil {
				return err
			}
			doc := struct {
				tagInfo
				signaturesInfo
			}{tagInfo: t}
			if doc.signaturesInfo, err = imageSignatures(cmd.Context(), c, ref.Repo, t.Digest); err != nil {
				return err
			}
			return a.show(q, doc, func() error {
				return a.columns(append([]string{"Tag:\t" + string(ref.Repo) + ":" + t.Name, "Digest:\t" + string(t.Digest), "Type:\t" + t.MediaType,
					fmt.Sprintf("Moved:\t%s by %s", t.UpdatedAt.UTC().Format(time.RFC3339), cmp.Or(t.UpdatedBy, "-"))}, doc.rows()...)...)
			})
		},
	})
}

func (a *app) tagHistoryCmd() *cobra.Command {
	var q asking
	var limit int
	cmd := q.bind(&cobra.Command{
		Use:   "history REPOSITORY:TAG",
		Short: "tell who moved a tag from what to what and when, newest first",
		Example: `  gatehouse tag history team/app:v1
  gatehouse tag history team/app:v1 --limit 5 --format json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := tagRef(args[0])
			if err != nil {
				return err
			}
			if limit < 1 {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--limit %d is less than 1", limit)
			}
			c, err := a.asker(q.at(cmd, args[0]))
			if err != nil {
				return err
			}
			all, err := tagHistory(cmd.Context(), c, ref, limit)
			if err != nil {
				return err
			}
			return a.show(q, all, func() error {
				rows := []string{"AT\tBY\tFROM\tTO"}
				for _, h := range all {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s", h.At.UTC().Format(time.RFC3339), cmp.Or(h.Actor, "-"),
						cmp.Or(string(h.From), "(created)"), cmp.Or(string(h.To), "(deleted)")))
				}
				return a.columns(rows...)
			})
		},
	})
	cmd.Flags().IntVar(&limit, "limit", 100, "the most changes to list")
	return cmd
}

func tagHistory(ctx context.Context, c *client, ref gatehouse.Ref, limit int) ([]tagChange, error) {
	all := []tagChange{}
	for query := (url.Values{}); len(all) < limit; {
		n := min(limit-len(all), askPage)
		query.Set("n", strconv.Itoa(n))
		var page struct {
			Changes []tagChange
			Next    int64
		}
		if err := c.do(ctx, "GET", tagPath(ref, ref.Tag, "history"), query, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Changes...)
		if page.Next == 0 || len(page.Changes) == 0 {
			break
		}
		query.Set("before", strconv.FormatInt(page.Next, 10))
	}
	return all, nil
}

func (a *app) tagRestoreCmd() *cobra.Command {
	var q asking
	return q.bind(&cobra.Command{
		Use:   "restore REPOSITORY:TAG[@DIGEST]",
		Short: "undo the last move or deletion of a tag, or go back to a digest of its history",
		Example: `  gatehouse tag restore team/app:v1
  gatehouse tag restore team/app:v1@sha256:4f53…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := tagRef(args[0])
			if err != nil {
				return err
			}
			c, err := a.asker(q.at(cmd, args[0]))
			if err != nil {
				return err
			}
			var h tagChange
			if err := c.post(cmd.Context(), tagPath(ref, ref.Tag, "restore"), map[string]string{"digest": string(ref.Digest)}, &h); err != nil {
				return err
			}
			return a.show(q, h, func() error {
				a.done("%s:%s points at %s again", ref.Repo, ref.Tag, h.To)
				return nil
			})
		},
	})
}

func (a *app) tagDeleteCmd() *cobra.Command {
	var q asking
	cmd := &cobra.Command{
		Use:   "delete REPOSITORY:TAG",
		Short: "delete a tag; its manifest stays until the tag can no longer be restored",
		Example: `  gatehouse tag delete team/app:v1
  gatehouse tag delete --server https://registry.example team/app:v1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := tagRef(args[0])
			if err != nil {
				return err
			}
			if ref.Digest != "" {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "a tag is deleted by its name, without a digest")
			}
			c, err := a.client(q.at(cmd, args[0]).server)
			if err != nil {
				return err
			}
			if err := c.do(cmd.Context(), "DELETE", tagPath(ref, ref.Tag), nil, nil, nil); err != nil {
				return err
			}
			a.done("deleted %s:%s; as long as its manifest is kept (tag-restore), `gatehouse tag restore` brings it back", ref.Repo, ref.Tag)
			return nil
		},
	}
	cmd.Flags().StringVar(&q.server, "server", "http://127.0.0.1:5000", "the server (URL)")
	return cmd
}
