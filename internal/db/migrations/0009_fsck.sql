-- What is known of the health of what is stored.

-- +goose Up
-- checked_at is when the bytes were last hashed and found right; storing them
-- is the first time. A blob in state 2 is withheld since damaged_at: its bytes
-- were found missing or changed. It is never served, and a push of the same
-- digest takes the row over.
ALTER TABLE blob ADD COLUMN checked_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE blob ADD COLUMN damaged_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE manifest ADD COLUMN damaged_at BIGINT NOT NULL DEFAULT 0;
-- broken is 1 where the manifest's own bytes are known to be damaged, or a blob
-- or child that it needs is: who asks before pushing must push it again.
ALTER TABLE manifest ADD COLUMN broken SMALLINT NOT NULL DEFAULT 0;
UPDATE blob SET checked_at = created_at;
CREATE INDEX blob_unchecked ON blob (checked_at, id, size) WHERE state = 0 AND storage_key <> '';
CREATE INDEX blob_withheld ON blob (id) WHERE state = 2;

-- Blobs that are being read by a scrub, under a lease. No row outlives its lease
-- for long; none refers to a blob, so that a claim keeps nothing from being
-- deleted.
CREATE TABLE scrub_claim (
  blob_id BIGINT PRIMARY KEY,
  lease   TEXT   NOT NULL,
  until   BIGINT NOT NULL
);

-- +goose Down
DROP TABLE scrub_claim;
DROP INDEX blob_withheld;
DROP INDEX blob_unchecked;
ALTER TABLE manifest DROP COLUMN broken;
ALTER TABLE manifest DROP COLUMN damaged_at;
ALTER TABLE blob DROP COLUMN damaged_at;
ALTER TABLE blob DROP COLUMN checked_at;
