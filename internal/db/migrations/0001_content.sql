-- What the registry holds. Digests are bytes: one for the algorithm (1 sha256,
-- 2 sha512), then the hash. Times are Unix microseconds in UTC.
-- {{id}}, {{bytes}}, {{name}} stand for what the two databases spell differently;
-- a {{name}} is text that is ordered by its bytes.

-- +goose Up
CREATE TABLE repository (
  id         {{id}},
  path       {{name}} NOT NULL UNIQUE,
  created_at BIGINT NOT NULL
);

-- A blob exists when its row does and state is 0 (live). Its bytes lie inline or
-- under storage_key, which is never used twice.
CREATE TABLE blob (
  id          {{id}},
  digest      {{bytes}} NOT NULL UNIQUE,
  size        BIGINT    NOT NULL,
  storage_key {{name}}  NOT NULL DEFAULT '',
  inline      {{bytes}},
  state       SMALLINT  NOT NULL DEFAULT 0,
  created_at  BIGINT    NOT NULL
);

-- The link is the right to read a blob through a repository. expires_at pins an
-- upload that no manifest refers to yet; NULL = held.
CREATE TABLE repo_blob (
  repo_id    BIGINT NOT NULL REFERENCES repository(id),
  blob_id    BIGINT NOT NULL REFERENCES blob(id),
  expires_at BIGINT,
  PRIMARY KEY (repo_id, blob_id)
);
CREATE INDEX blob_by_key ON blob (storage_key);
CREATE INDEX repo_blob_by_blob ON repo_blob (blob_id);

CREATE TABLE manifest (
  id            {{id}},
  repo_id       BIGINT    NOT NULL REFERENCES repository(id),
  digest        {{bytes}} NOT NULL,
  media_type    TEXT      NOT NULL,
  artifact_type TEXT      NOT NULL DEFAULT '',
  subject       {{bytes}},
  annotations   TEXT      NOT NULL DEFAULT '',
  size          BIGINT    NOT NULL,
  body          {{bytes}} NOT NULL,
  pushed_by     TEXT      NOT NULL,
  pushed_at     BIGINT    NOT NULL,
  UNIQUE (repo_id, digest)
);
CREATE INDEX manifest_by_subject ON manifest (repo_id, subject, id);
CREATE INDEX manifest_by_digest ON manifest (digest);

-- kind: 1 config, 2 layer.
CREATE TABLE manifest_blob (
  manifest_id BIGINT   NOT NULL REFERENCES manifest(id),
  ordinal     INTEGER  NOT NULL,
  blob_id     BIGINT   NOT NULL REFERENCES blob(id),
  kind        SMALLINT NOT NULL,
  PRIMARY KEY (manifest_id, ordinal)
);
CREATE INDEX manifest_blob_by_blob ON manifest_blob (blob_id);

CREATE TABLE manifest_child (
  parent_id BIGINT  NOT NULL REFERENCES manifest(id),
  ordinal   INTEGER NOT NULL,
  child_id  BIGINT  NOT NULL REFERENCES manifest(id),
  PRIMARY KEY (parent_id, ordinal)
);
CREATE INDEX manifest_child_by_child ON manifest_child (child_id);

CREATE TABLE tag (
  repo_id     BIGINT NOT NULL REFERENCES repository(id),
  name        {{name}} NOT NULL,
  manifest_id BIGINT NOT NULL REFERENCES manifest(id),
  updated_by  TEXT   NOT NULL,
  updated_at  BIGINT NOT NULL,
  PRIMARY KEY (repo_id, name)
);
CREATE INDEX tag_by_manifest ON tag (manifest_id);

-- Who moved which tag from what to what, when. NULL: created, deleted.
CREATE TABLE tag_history (
  id         {{id}},
  repo_id    BIGINT NOT NULL REFERENCES repository(id),
  name       TEXT   NOT NULL,
  old_digest {{bytes}},
  new_digest {{bytes}},
  actor      TEXT   NOT NULL,
  at         BIGINT NOT NULL
);
CREATE INDEX tag_history_by_name ON tag_history (repo_id, name, id);

-- An upload session. Up to 64 KiB its bytes are the head; more of them lie in
-- storage under storage_key, of which the first size bytes count, and hash_state
-- is the running hash over them. storage_state is the store's own note. lease is
-- a random token: who holds it may append. state: 0 open, 1 dropped: nobody may
-- use it any more and its bytes are to be deleted before the row is, so that
-- every stored key is named by a row at all times.
CREATE TABLE upload (
  id            TEXT PRIMARY KEY,
  repo_id       BIGINT    NOT NULL REFERENCES repository(id),
  algorithm     TEXT      NOT NULL,
  size          BIGINT    NOT NULL DEFAULT 0,
  head          {{bytes}},
  hash_state    {{bytes}},
  storage_key   {{name}}  NOT NULL DEFAULT '',
  storage_state {{bytes}},
  state         SMALLINT  NOT NULL DEFAULT 0,
  actor         TEXT      NOT NULL,
  lease         TEXT      NOT NULL DEFAULT '',
  leased_until  BIGINT    NOT NULL DEFAULT 0,
  created_at    BIGINT    NOT NULL,
  updated_at    BIGINT    NOT NULL
);
CREATE INDEX upload_by_age ON upload (updated_at);
CREATE INDEX upload_by_key ON upload (storage_key);

-- +goose Down
DROP TABLE upload;
DROP TABLE tag_history;
DROP TABLE tag;
DROP TABLE manifest_child;
DROP TABLE manifest_blob;
DROP TABLE manifest;
DROP TABLE repo_blob;
DROP TABLE blob;
DROP TABLE repository;
