-- How decisions were come to, reviews that can be judged again, and tokens that let
-- an image run in spite of what the policies say.

-- +goose Up

-- The tree of a decision: JSON, deflated, by the digest of what it is before. Many
-- decisions have the same.
CREATE TABLE decision_tree (
  digest  {{bytes}} PRIMARY KEY,
  used_at BIGINT    NOT NULL,
  doc     {{bytes}} NOT NULL
);
ALTER TABLE decision ADD COLUMN tree {{bytes}};
CREATE INDEX decision_by_tree ON decision (tree);

-- A review that was decided, by the digest of what a policy could tell it by. doc is
-- JSON, deflated; size is that of the row, about.
CREATE TABLE review (
  digest   {{bytes}} PRIMARY KEY,
  first_at BIGINT    NOT NULL,
  last_at  BIGINT    NOT NULL,
  times    BIGINT    NOT NULL,
  decision {{name}}  NOT NULL, -- the last
  verdict  SMALLINT  NOT NULL,
  size     BIGINT    NOT NULL,
  doc      {{bytes}} NOT NULL
);
CREATE INDEX review_by_time ON review (last_at);

-- A token to break the glass with. It is not kept, but its digest is. What is 0 or
-- empty has not happened.
CREATE TABLE break_glass (
  id         {{id}},
  token      {{bytes}} NOT NULL UNIQUE,
  namespace  {{name}}  NOT NULL,
  digest     {{bytes}} NOT NULL, -- of the image
  requester  TEXT      NOT NULL,
  everything SMALLINT  NOT NULL, -- 1: also what policies say of the object
  reason     TEXT      NOT NULL,
  created_by TEXT      NOT NULL,
  created_at BIGINT    NOT NULL,
  expires_at BIGINT    NOT NULL,
  revoked_at BIGINT    NOT NULL,
  used_at    BIGINT    NOT NULL,
  used_by    TEXT      NOT NULL, -- the uid of the object that it let run
  decision   {{name}}  NOT NULL
);

-- +goose Down
DROP TABLE break_glass;
DROP TABLE review;
DROP INDEX decision_by_tree;
ALTER TABLE decision DROP COLUMN tree;
DROP TABLE decision_tree;
