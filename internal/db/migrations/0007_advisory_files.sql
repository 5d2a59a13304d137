-- Advisory generations lie in the blob store; every replica keeps copies of
-- those that it needs.

-- +goose Up
ALTER TABLE generation ADD COLUMN storage_key TEXT NOT NULL DEFAULT ''; -- empty: not stored, or not any more
CREATE INDEX generation_by_key ON generation (storage_key) WHERE storage_key <> '';

-- Every key under which a generation is stored, was, or may be: it is here
-- before the first byte is written and until the last one is deleted.
CREATE TABLE advisory_file (
  storage_key {{name}} PRIMARY KEY,
  created_at  BIGINT NOT NULL,
  dropping    SMALLINT NOT NULL DEFAULT 0 -- 1: its bytes are to be deleted
);

-- +goose Down
DROP TABLE advisory_file;
DROP INDEX generation_by_key;
ALTER TABLE generation DROP COLUMN storage_key;
