-- What may be garbage, and what has been found to be.

-- +goose Up

-- Something to look at again once its time has come: kind 1 a manifest, 2 a blob,
-- by row id. It is written in the transaction of the event that may have made it
-- garbage; until review_after a manifest is kept. attempts counts reviews that
-- failed.
CREATE TABLE gc_task (
  kind         SMALLINT NOT NULL,
  key          BIGINT   NOT NULL,
  event        TEXT     NOT NULL,
  review_after BIGINT   NOT NULL,
  attempts     INTEGER  NOT NULL DEFAULT 0,
  PRIMARY KEY (kind, key)
);
CREATE INDEX gc_task_due ON gc_task (kind, review_after);
CREATE INDEX gc_task_failed ON gc_task (kind, key) WHERE attempts > 0;

-- Bytes that no blob names any more. They are deleted from due_at on, the row
-- after them, so that every stored key is named by a row at all times.
CREATE TABLE doomed (
  storage_key {{name}} PRIMARY KEY,
  digest      {{bytes}} NOT NULL,
  size        BIGINT    NOT NULL,
  due_at      BIGINT    NOT NULL
);
CREATE INDEX doomed_due ON doomed (due_at);
CREATE INDEX doomed_by_digest ON doomed (digest);

-- A manifest that nobody may delete until the hold is released.
CREATE TABLE hold (
  repo_id    BIGINT    NOT NULL REFERENCES repository(id),
  digest     {{bytes}} NOT NULL,
  reason     TEXT      NOT NULL,
  actor      TEXT      NOT NULL,
  created_at BIGINT    NOT NULL,
  PRIMARY KEY (repo_id, digest)
);

-- Sums that survive restarts.
CREATE TABLE counter (
  name  TEXT PRIMARY KEY,
  value BIGINT NOT NULL
);

-- Whether a repository still needs a blob is asked for each manifest that goes. A
-- blob that is everywhere, such as the empty config, must not make that dear.
ALTER TABLE manifest_blob ADD COLUMN repo_id BIGINT NOT NULL DEFAULT 0;
UPDATE manifest_blob SET repo_id = (SELECT m.repo_id FROM manifest m WHERE m.id = manifest_blob.manifest_id);
DROP INDEX manifest_blob_by_blob;
CREATE INDEX manifest_blob_by_blob ON manifest_blob (blob_id, repo_id);
CREATE INDEX repo_blob_expiring ON repo_blob (blob_id, expires_at) WHERE expires_at IS NOT NULL;

-- What is garbage already. A day (86400000000 µs) and the two weeks of a tag are
-- the defaults; times that the settings change apply to what happens from now on.
INSERT INTO gc_task (kind, key, event, review_after)
  SELECT 1, m.id, 'upgraded', COALESCE(h.at + 1209600000000, m.pushed_at + 86400000000)
  FROM manifest m LEFT JOIN (SELECT repo_id, old_digest, MAX(at) AS at FROM tag_history
    WHERE old_digest IS NOT NULL GROUP BY repo_id, old_digest) h ON h.repo_id = m.repo_id AND h.old_digest = m.digest
  WHERE NOT EXISTS (SELECT 1 FROM tag t WHERE t.manifest_id = m.id);
UPDATE repo_blob SET expires_at = 86400000000 + (SELECT COALESCE(MAX(e.at), 0) FROM event e)
  WHERE expires_at IS NULL AND NOT EXISTS (SELECT 1 FROM manifest_blob e WHERE e.blob_id = repo_blob.blob_id AND e.repo_id = repo_blob.repo_id);
INSERT INTO gc_task (kind, key, event, review_after)
  SELECT 2, b.id, 'upgraded', COALESCE((SELECT MAX(l.expires_at) FROM repo_blob l WHERE l.blob_id = b.id), 0)
  FROM blob b WHERE EXISTS (SELECT 1 FROM repo_blob l WHERE l.blob_id = b.id AND l.expires_at IS NOT NULL)
    OR NOT EXISTS (SELECT 1 FROM repo_blob l WHERE l.blob_id = b.id);

-- +goose Down
DROP INDEX repo_blob_expiring;
DROP INDEX manifest_blob_by_blob;
ALTER TABLE manifest_blob DROP COLUMN repo_id;
CREATE INDEX manifest_blob_by_blob ON manifest_blob (blob_id);
DROP TABLE counter;
DROP TABLE hold;
DROP TABLE doomed;
DROP TABLE gc_task;
