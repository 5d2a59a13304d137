-- Findings that somebody has accepted.

-- +goose Up
-- finding is an id or alias. What is set of project, repository, digest and
-- package must all fit; at least one is. expires_at 0 is never.
CREATE TABLE finding_exception (
  id         {{id}},
  finding    {{name}} NOT NULL,
  project    {{name}} NOT NULL,
  repository {{name}} NOT NULL,
  digest     {{name}} NOT NULL,
  package    TEXT     NOT NULL,
  reason     TEXT     NOT NULL,
  author     TEXT     NOT NULL,
  created_at BIGINT   NOT NULL,
  expires_at BIGINT   NOT NULL
);

-- +goose Down
DROP TABLE finding_exception;
