-- Transparency logs: RFC 6962 trees whose tiles, entries and checkpoints are rows.

-- +goose Up

-- A log. size and root are those of the tree that has been committed; checkpoint
-- is the newest signed note, over the first published entries, which lags for the
-- moment that signing takes. fence is the number of the sequencer in charge:
-- each one that takes over adds one, and no other may change this row.
-- Nothing refers to the row by a foreign key: whoever adds an entry would lock it,
-- and have the sequencer wait for the end of a stranger's transaction.
CREATE TABLE tlog (
  id           {{id}},
  origin       {{name}}  NOT NULL UNIQUE,
  size         BIGINT    NOT NULL,
  root         {{bytes}} NOT NULL,
  fence        BIGINT    NOT NULL,
  published    BIGINT    NOT NULL,
  checkpoint   {{bytes}} NOT NULL,
  published_at BIGINT    NOT NULL
);

-- Entries that wait for a place in the tree.
CREATE TABLE tlog_pending (
  seq      {{id}},
  log_id   BIGINT    NOT NULL,
  body     {{bytes}} NOT NULL,
  added_at BIGINT    NOT NULL
);
CREATE INDEX tlog_pending_by_log ON tlog_pending (log_id, seq);

-- Entries of the tree by their place. hash is that of the leaf; an entry is in a
-- log once.
CREATE TABLE tlog_entry (
  log_id BIGINT    NOT NULL,
  idx    BIGINT    NOT NULL,
  hash   {{bytes}} NOT NULL,
  body   {{bytes}} NOT NULL,
  PRIMARY KEY (log_id, idx)
);
CREATE UNIQUE INDEX tlog_entry_by_hash ON tlog_entry (log_id, hash);

-- Hash tiles of height 8 (C2SP tlog-tiles): the hashes so far, 32 bytes each. A
-- tile grows at its end only, so that a prefix of it is each of its partial tiles.
CREATE TABLE tlog_tile (
  log_id BIGINT    NOT NULL,
  level  SMALLINT  NOT NULL,
  idx    BIGINT    NOT NULL,
  hashes {{bytes}} NOT NULL,
  PRIMARY KEY (log_id, level, idx)
);

-- +goose Down
DROP TABLE tlog_tile;
DROP TABLE tlog_entry;
DROP TABLE tlog_pending;
DROP TABLE tlog;
