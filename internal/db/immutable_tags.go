package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// ImmutableTags says which tags of a project, once pushed, never move or go. Tags that
// are named after a manifest ([AttachedTo]) are none of them: clients overwrite those.
type ImmutableTags struct {
	Project   string
	Patterns  gatehouse.TagPatterns // none: all tags may move
	UpdatedBy string
	UpdatedAt time.Time
}

// SetImmutableTags sets which tags of a project are immutable, with its event and audit
// record. Moves of tags that are under way end before it; those behind it go by it.
// CodeUnavailable: one is under way for too long.
func (t *Tx) SetImmutableTags(ctx context.Context, actor gatehouse.Actor, s ImmutableTags) (ImmutableTags, error) {
	if s.Patterns == nil {
		s.Patterns = gatehouse.TagPatterns{}
	}
	patterns, err := json.Marshal(s.Patterns)
	if err != nil {
		return s, err
	}
	if err := t.beBrief(ctx); err != nil {
		return s, err
	}
	// Those who want to move a tag queue behind whoever waits for the turn.
	if err := t.beImpatient(ctx); err != nil {
		return s, err
	}
	if err := t.take(ctx, turnTags); err != nil {
		return s, err
	}
	s.UpdatedBy, s.UpdatedAt = actor.Name, fromMicros(micros(t.now))
	_, err = t.tx.ExecContext(ctx, `INSERT INTO immutable_tags (project, patterns, updated_by, updated_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (project) DO UPDATE SET patterns = excluded.patterns, updated_by = excluded.updated_by, updated_at = excluded.updated_at`,
		s.Project, string(patterns), s.UpdatedBy, micros(t.now))
	if err != nil {
		return s, unavailable(err)
	}
	detail, err := json.Marshal(map[string]any{"project": s.Project, "immutableTags": s.Patterns})
	if err != nil {
		return s, err
	}
	if err := t.AddEvent(ctx, gatehouse.Event{Type: gatehouse.EventProjectChanged, Actor: actor.Name, Payload: detail}); err != nil {
		return s, err
	}
	return s, t.AddAudit(ctx, actor, "project.immutable-tags.set", s.Project, string(detail))
}

// ImmutableTags tells which tags of the project of a repository are immutable. ok is
// false where that was never set.
func (t *Tx) ImmutableTags(ctx context.Context, repo gatehouse.Repo) (s ImmutableTags, ok bool, err error) {
	list, err := t.immutableTags(ctx, `WHERE project = $1`, projectOf(repo))
	if err != nil || len(list) == 0 {
		return s, false, err
	}
	return list[0], true, nil
}

// AllImmutableTags lists the settings of projects, by name behind the given one, at
// most n.
func (t *Tx) AllImmutableTags(ctx context.Context, after string, n int) ([]ImmutableTags, error) {
	return t.immutableTags(ctx, `WHERE project > $1 ORDER BY project LIMIT $2`, after, n)
}

func (t *Tx) immutableTags(ctx context.Context, where string, args ...any) ([]ImmutableTags, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT project, patterns, updated_by, updated_at FROM immutable_tags `+where, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []ImmutableTags
	for rows.Next() {
		var s ImmutableTags
		var patterns string
		var at int64
		if err := rows.Scan(&s.Project, &patterns, &s.UpdatedBy, &at); err != nil {
			return nil, unavailable(err)
		}
		if s.Patterns, err = storedPatterns(s.Project, patterns); err != nil {
			return nil, err
		}
		s.UpdatedAt = fromMicros(at)
		out = append(out, s)
	}
	return out, unavailable(rows.Err())
}

// storedPatterns reads the patterns of a row. One that means nothing would open the tags
// that it closes.
func storedPatterns(project, stored string) (gatehouse.TagPatterns, error) {
	var list []string
	err := json.Unmarshal([]byte(stored), &list)
	if err == nil {
		list, err = gatehouse.ParseTagPatterns(list)
	}
	if err != nil {
		return nil, fmt.Errorf("stored immutable tags of %s: %w", project, err)
	}
	return list, nil
}

// MayMoveTag refuses to move or delete a tag that is there and is immutable. The answer
// holds until a transaction that writes ends.
// CodeConflict with detail TAG_IMMUTABLE: it is.
func (t *Tx) MayMoveTag(ctx context.Context, repo gatehouse.Repo, name string) error {
	if _, attached := AttachedTo(name); attached {
		return nil
	}
	if err := t.takeShared(ctx, turnTags); err != nil {
		return err
	}
	s, _, err := t.ImmutableTags(ctx, repo)
	if err != nil {
		return err
	}
	pattern, immutable := s.Patterns.Match(name)
	if !immutable {
		return nil
	}
	return gatehouse.Errorf(gatehouse.CodeConflict, "tag %s of repository %s is immutable: project %s has the pattern %s", name, repo, s.Project, pattern).
		WithDetail("TAG_IMMUTABLE").WithHint("use another tag; an administrator can change the patterns: gatehouse project update %s --immutable-tags", s.Project)
}

// TagFixed reports whether a tag points at digest, has never pointed at anything else
// that somebody may still have by its name, and is immutable, all at one moment: from
// then on it stays so, as long as nobody changes the setting. One reading statement.
func (t *Tx) TagFixed(ctx context.Context, repo gatehouse.Repo, name string, digest gatehouse.Digest) (bool, error) {
	if _, attached := AttachedTo(name); attached {
		return false, nil
	}
	var stored string
	project := projectOf(repo)
	err := t.tx.QueryRowContext(ctx, `SELECT i.patterns FROM repository r JOIN tag t ON t.repo_id = r.id JOIN manifest m ON m.id = t.manifest_id
		JOIN immutable_tags i ON i.project = $4 WHERE r.path = $1 AND t.name = $2 AND m.digest = $3
		AND NOT EXISTS (SELECT 1 FROM tag_history h WHERE h.repo_id = r.id AND h.name = t.name AND h.new_digest <> $3)`,
		string(repo), name, dbDigest(digest), project).Scan(&stored)
	if none(err) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	patterns, err := storedPatterns(project, stored)
	if err != nil {
		return false, err
	}
	_, fixed := patterns.Match(name)
	return fixed, nil
}
