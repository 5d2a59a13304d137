-- More than one process on one database.

-- +goose Up
-- The transaction of an event. Where transactions run side by side seq is not
-- the order of commits; whatever commits later than all that has ended has a
-- higher txid.
ALTER TABLE event ADD COLUMN txid {{txid}};
CREATE INDEX event_by_txid ON event (txid, seq);

-- Work that one process does at a time. holder is a random token.
CREATE TABLE lease (
  name         {{name}} PRIMARY KEY,
  holder       TEXT   NOT NULL,
  leased_until BIGINT NOT NULL
);

-- +goose Down
DROP TABLE lease;
DROP INDEX event_by_txid;
ALTER TABLE event DROP COLUMN txid;
