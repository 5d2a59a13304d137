-- Promotions, the keys that the server signs with, and what it has attested.

-- +goose Up

-- An image that was copied from one repository to another after its gates were
-- looked at. doc is what was told of it; attestation is the manifest that carries
-- the signed statement.
CREATE TABLE promotion (
  id          {{id}},
  at          BIGINT    NOT NULL,
  actor       TEXT      NOT NULL,
  source      {{name}}  NOT NULL,
  destination {{name}}  NOT NULL,
  tag         {{name}}  NOT NULL,
  digest      {{bytes}} NOT NULL,
  attestation {{bytes}} NOT NULL,
  doc         TEXT      NOT NULL
);
CREATE INDEX promotion_by_destination ON promotion (destination, digest, id);

-- A key pair that all replicas sign with, by what for. sealed is PEM, encrypted.
CREATE TABLE server_key (
  purpose {{name}} PRIMARY KEY,
  public  TEXT     NOT NULL,
  sealed  TEXT     NOT NULL,
  made_at BIGINT   NOT NULL
);

-- What the verdict of an image was, the newest time of indexing and matching, when
-- it was attested last.
CREATE TABLE attested_scan (
  image_id   BIGINT PRIMARY KEY REFERENCES image(id),
  verdict_at BIGINT NOT NULL
);

-- +goose Down
DROP TABLE attested_scan;
DROP TABLE server_key;
DROP TABLE promotion;
