-- Scans for other registries, and what other scanners think.

-- +goose Up

-- A scan that another registry has asked for. state: 0 waits, 1 done, 2 failed.
-- sealed is what lets us pull, encrypted under a key that is not in the database;
-- it goes when the scan is over.
CREATE TABLE adapter_scan (
  id          {{name}}  PRIMARY KEY,
  state       SMALLINT  NOT NULL,
  request     TEXT      NOT NULL,
  sealed      {{bytes}} NOT NULL,
  error       TEXT      NOT NULL,
  created_at  BIGINT    NOT NULL,
  finished_at BIGINT    NOT NULL
);
CREATE INDEX adapter_scan_by_time ON adapter_scan (created_at, id);
CREATE INDEX adapter_scan_waiting ON adapter_scan (id) WHERE state = 0;

-- The documents of a scan, compressed, by what they are.
CREATE TABLE adapter_report (
  scan_id {{name}}  NOT NULL REFERENCES adapter_scan(id),
  kind    {{name}}  NOT NULL,
  doc     {{bytes}} NOT NULL,
  PRIMARY KEY (scan_id, kind)
);

-- Layers of images that are not stored here: they are kept while they are asked for.
CREATE TABLE adapter_layer (
  layer_id BIGINT PRIMARY KEY REFERENCES layer(id),
  used_at  BIGINT NOT NULL
);
CREATE INDEX adapter_layer_by_use ON adapter_layer (used_at);

-- What another scanner said of an image. error is why it said nothing the last
-- time it was asked; doc is its last answer, compressed, empty where there is none.
CREATE TABLE opinion (
  digest      {{bytes}} NOT NULL,
  source      {{name}}  NOT NULL,
  asked_at    BIGINT    NOT NULL,
  answered_at BIGINT    NOT NULL,
  error       TEXT      NOT NULL,
  doc         {{bytes}} NOT NULL,
  PRIMARY KEY (digest, source)
);

-- Permissions to pull from one repository for a short time, by the sha256 of
-- the secret.
CREATE TABLE pull_token (
  hash       {{bytes}} PRIMARY KEY,
  repo       {{name}}  NOT NULL,
  expires_at BIGINT    NOT NULL
);
CREATE INDEX pull_token_by_end ON pull_token (expires_at);

-- +goose Down
DROP TABLE pull_token;
DROP TABLE opinion;
DROP TABLE adapter_layer;
DROP TABLE adapter_report;
DROP TABLE adapter_scan;
