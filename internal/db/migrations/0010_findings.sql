-- What is wrong with images besides their packages, what was wrong with them, and
-- which image they were built upon.

-- +goose Up

-- What the files of a layer show that needs no advisory: secrets, misconfiguration.
-- doc is the Finding as the layer's inventory has it (JSON).
CREATE TABLE layer_finding (
  layer_id BIGINT   NOT NULL REFERENCES layer(id),
  ordinal  INTEGER  NOT NULL,
  kind     {{name}} NOT NULL,
  severity SMALLINT NOT NULL,
  doc      TEXT     NOT NULL,
  PRIMARY KEY (layer_id, ordinal)
);

-- The exceptions: findings of a layer that an image does not show (state 1), or
-- that lie in a file which an upper layer hides and a pull still brings (state 2).
CREATE TABLE image_finding_state (
  image_id BIGINT   NOT NULL REFERENCES image(id),
  ordinal  INTEGER  NOT NULL, -- of the layer in the image
  finding  INTEGER  NOT NULL, -- of the finding in the layer
  state    SMALLINT NOT NULL,
  PRIMARY KEY (image_id, ordinal, finding)
);

-- What is no layer's: findings of the configuration and its history.
CREATE TABLE image_finding (
  image_id BIGINT  NOT NULL REFERENCES image(id),
  ordinal  INTEGER NOT NULL,
  doc      TEXT    NOT NULL,
  PRIMARY KEY (image_id, ordinal)
);

-- Sums of an image's findings by kind, s0…s5 by severity. Vulnerabilities are
-- counted in image; a kind without a row has none.
CREATE TABLE image_kind (
  image_id BIGINT   NOT NULL REFERENCES image(id),
  kind     {{name}} NOT NULL,
  s0 INTEGER NOT NULL, s1 INTEGER NOT NULL, s2 INTEGER NOT NULL, s3 INTEGER NOT NULL, s4 INTEGER NOT NULL, s5 INTEGER NOT NULL,
  PRIMARY KEY (image_id, kind)
);

-- Findings that went: per package version, never per image.
CREATE TABLE finding_history (
  package_id BIGINT   NOT NULL REFERENCES package(id),
  os_space   {{name}} NOT NULL,
  vuln       {{name}} NOT NULL,
  severity   SMALLINT NOT NULL,
  first_seen BIGINT   NOT NULL,
  gone_at    BIGINT   NOT NULL,
  PRIMARY KEY (package_id, os_space, vuln, gone_at)
);

-- first_indexed_at stays when an image is indexed again. layers tells where each
-- layer comes from (JSON), chain names all of them together (the ChainID of the
-- image-spec, config.md): an image whose chain is that of a part of another's is
-- what the other was built upon.
ALTER TABLE image ADD COLUMN first_indexed_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE image ADD COLUMN layers TEXT NOT NULL DEFAULT '[]';
ALTER TABLE image ADD COLUMN chain {{bytes}};
UPDATE image SET first_indexed_at = indexed_at;
CREATE INDEX image_by_chain ON image (chain);

-- When an image was last asked for by a cluster, to the hour.
CREATE TABLE image_use (
  digest  {{bytes}} PRIMARY KEY,
  used_at BIGINT    NOT NULL
);

-- Images to index again, last used first: another version of the indexer did it.
CREATE TABLE reindex (
  image_id BIGINT PRIMARY KEY REFERENCES image(id),
  used_at  BIGINT NOT NULL
);
CREATE INDEX reindex_by_use ON reindex (used_at, image_id);

-- A page of the images that one layer is in is a range of this index.
DROP INDEX image_layer_by_layer;
CREATE INDEX image_layer_by_layer ON image_layer (layer_id, image_id);

-- +goose Down
DROP INDEX image_layer_by_layer;
CREATE INDEX image_layer_by_layer ON image_layer (layer_id);
DROP TABLE reindex;
DROP TABLE image_use;
DROP INDEX image_by_chain;
ALTER TABLE image DROP COLUMN chain;
ALTER TABLE image DROP COLUMN layers;
ALTER TABLE image DROP COLUMN first_indexed_at;
DROP TABLE finding_history;
DROP TABLE image_kind;
DROP TABLE image_finding;
DROP TABLE image_finding_state;
DROP TABLE layer_finding;
