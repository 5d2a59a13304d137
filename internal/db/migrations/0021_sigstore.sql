-- A private Sigstore: its keys, and the TUF repository that tells of them.

-- +goose Up

-- One row, from the first start on. generation grows with each change of keys or
-- files, and whoever changes them names the one that they saw. data_key opens what
-- is sealed in sigstore_key; sealer says what opens data_key.
CREATE TABLE sigstore (
  one        SMALLINT  PRIMARY KEY CHECK (one = 1),
  generation BIGINT    NOT NULL,
  sealer     TEXT      NOT NULL,
  data_key   {{bytes}} NOT NULL
);

-- chain is DER, from the certificate of the key to the root; sealed is PKCS #8,
-- encrypted. until_at is 0 while a key is in force.
CREATE TABLE sigstore_key (
  id       {{name}}  PRIMARY KEY,
  kind     {{name}}  NOT NULL,
  name     TEXT      NOT NULL,
  public   {{bytes}} NOT NULL,
  chain    {{bytes}} NOT NULL,
  sealed   {{bytes}} NOT NULL,
  from_at  BIGINT    NOT NULL,
  until_at BIGINT    NOT NULL
);

-- Files of the TUF repository by their paths.
CREATE TABLE sigstore_file (
  path {{name}}  PRIMARY KEY,
  body {{bytes}} NOT NULL
);

-- +goose Down
DROP TABLE sigstore_file;
DROP TABLE sigstore_key;
DROP TABLE sigstore;
