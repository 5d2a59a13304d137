-- Tags that keep what they point at.

-- +goose Up

-- Which tags of a project, once pushed, never move or go. patterns is a JSON list of
-- globs; empty: none.
CREATE TABLE immutable_tags (
  project    {{name}} PRIMARY KEY,
  patterns   TEXT     NOT NULL,
  updated_by TEXT     NOT NULL,
  updated_at BIGINT   NOT NULL
);

-- +goose Down
DROP TABLE immutable_tags;
