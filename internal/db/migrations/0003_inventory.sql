-- What is inside the images, and what is wrong with it.
--
-- A package set is what one extractor read from one file; a layer is its sets by
-- path; an image is its layers minus what upper layers hide. Findings hang on
-- distinct package versions. Rows grow with distinct layers and sets, never with
-- images times packages, and package -> set -> layer -> image is the inverted
-- index that a new advisory walks.

-- +goose Up

-- One analysis of one layer by one analyser version. inventory is the whole
-- LayerInventory (JSON, zstd).
CREATE TABLE layer (
  id         {{id}},
  diff_id    {{bytes}} NOT NULL,
  indexer    {{name}}  NOT NULL,
  size       BIGINT    NOT NULL,
  complete   SMALLINT  NOT NULL,
  inventory  {{bytes}} NOT NULL,
  indexed_at BIGINT    NOT NULL,
  UNIQUE (diff_id, indexer)
);

-- Which stored bytes were seen to decompress to which layer.
CREATE TABLE layer_blob (
  digest   {{bytes}} NOT NULL,
  indexer  {{name}}  NOT NULL,
  layer_id BIGINT    NOT NULL REFERENCES layer(id),
  PRIMARY KEY (digest, indexer)
);

CREATE TABLE package_set (
  id  {{id}},
  key {{bytes}} NOT NULL UNIQUE,
  os  SMALLINT  NOT NULL
);

-- A distinct package version. doc is the Package without place (JSON).
CREATE TABLE package (
  id   {{id}},
  key  {{bytes}} NOT NULL UNIQUE,
  doc  TEXT      NOT NULL
);

CREATE TABLE set_package (
  set_id     BIGINT NOT NULL REFERENCES package_set(id),
  package_id BIGINT NOT NULL REFERENCES package(id),
  PRIMARY KEY (set_id, package_id)
);
CREATE INDEX set_package_by_package ON set_package (package_id);

CREATE TABLE layer_set (
  layer_id BIGINT  NOT NULL REFERENCES layer(id),
  ordinal  INTEGER NOT NULL,
  set_id   BIGINT  NOT NULL REFERENCES package_set(id),
  path     TEXT    NOT NULL,
  PRIMARY KEY (layer_id, ordinal)
);
CREATE INDEX layer_set_by_set ON layer_set (set_id);

-- Where the advisories speak of a package: the names to look it up by. os_space
-- is the distribution that an OS package was seen in, one set of rows for each;
-- language packages carry ''.
CREATE TABLE package_name (
  space      {{name}} NOT NULL,
  name       {{name}} NOT NULL,
  package_id BIGINT NOT NULL REFERENCES package(id),
  os_space   {{name}} NOT NULL,
  PRIMARY KEY (space, name, package_id, os_space)
);
CREATE INDEX package_name_by_package ON package_name (package_id, os_space);

-- severity as in the root package: 0 unknown … 5 critical. doc is the Finding
-- without its package (JSON).
CREATE TABLE finding (
  package_id BIGINT   NOT NULL REFERENCES package(id),
  os_space   {{name}} NOT NULL,
  vuln       {{name}} NOT NULL,
  severity   SMALLINT NOT NULL,
  fixable    SMALLINT NOT NULL,
  doc        TEXT     NOT NULL,
  first_seen BIGINT   NOT NULL,
  PRIMARY KEY (package_id, os_space, vuln)
);
CREATE INDEX finding_by_vuln ON finding (vuln);

-- Sums of findings, s0…s5 by severity, f0…f5 those with a fix. os_space is the
-- distribution that the OS packages are matched in; sets of language packages
-- carry ''. A row says that the set has been matched there, even if all is zero.
CREATE TABLE set_count (
  set_id   BIGINT NOT NULL REFERENCES package_set(id),
  os_space {{name}} NOT NULL,
  s0 INTEGER NOT NULL, s1 INTEGER NOT NULL, s2 INTEGER NOT NULL, s3 INTEGER NOT NULL, s4 INTEGER NOT NULL, s5 INTEGER NOT NULL,
  f0 INTEGER NOT NULL, f1 INTEGER NOT NULL, f2 INTEGER NOT NULL, f3 INTEGER NOT NULL, f4 INTEGER NOT NULL, f5 INTEGER NOT NULL,
  PRIMARY KEY (set_id, os_space)
);
CREATE TABLE layer_count (
  layer_id BIGINT NOT NULL REFERENCES layer(id),
  os_space {{name}} NOT NULL,
  s0 INTEGER NOT NULL, s1 INTEGER NOT NULL, s2 INTEGER NOT NULL, s3 INTEGER NOT NULL, s4 INTEGER NOT NULL, s5 INTEGER NOT NULL,
  f0 INTEGER NOT NULL, f1 INTEGER NOT NULL, f2 INTEGER NOT NULL, f3 INTEGER NOT NULL, f4 INTEGER NOT NULL, f5 INTEGER NOT NULL,
  PRIMARY KEY (layer_id, os_space)
);

-- One indexed image manifest, by digest: the inventory is a function of bytes,
-- so repositories share it. state: 0 indexed, 1 failed for good (reasons say
-- why). generation is the one that last changed the counts; they are true for
-- every later matched generation too.
CREATE TABLE image (
  id          {{id}},
  digest      {{bytes}} NOT NULL UNIQUE,
  indexer     TEXT      NOT NULL,
  state       SMALLINT  NOT NULL,
  os_space    {{name}}  NOT NULL,
  spaces      TEXT      NOT NULL, -- JSON list: where its packages are looked up, alternatives joined by |
  distro      TEXT      NOT NULL,
  config      TEXT      NOT NULL,
  complete    SMALLINT  NOT NULL,
  reasons     TEXT      NOT NULL,
  indexed_at  BIGINT    NOT NULL,
  generation  BIGINT    NOT NULL,
  matched_at  BIGINT    NOT NULL,
  s0 INTEGER NOT NULL DEFAULT 0, s1 INTEGER NOT NULL DEFAULT 0, s2 INTEGER NOT NULL DEFAULT 0,
  s3 INTEGER NOT NULL DEFAULT 0, s4 INTEGER NOT NULL DEFAULT 0, s5 INTEGER NOT NULL DEFAULT 0,
  f0 INTEGER NOT NULL DEFAULT 0, f1 INTEGER NOT NULL DEFAULT 0, f2 INTEGER NOT NULL DEFAULT 0,
  f3 INTEGER NOT NULL DEFAULT 0, f4 INTEGER NOT NULL DEFAULT 0, f5 INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE image_layer (
  image_id BIGINT  NOT NULL REFERENCES image(id),
  ordinal  INTEGER NOT NULL,
  layer_id BIGINT  NOT NULL REFERENCES layer(id),
  PRIMARY KEY (image_id, ordinal)
);
CREATE INDEX image_layer_by_layer ON image_layer (layer_id);

-- The exceptions: sets of a layer that an upper layer of the image hides.
CREATE TABLE image_hidden (
  image_id    BIGINT  NOT NULL REFERENCES image(id),
  ordinal     INTEGER NOT NULL, -- of the layer in the image
  set_ordinal INTEGER NOT NULL, -- of the set in the layer
  set_id      BIGINT  NOT NULL REFERENCES package_set(id),
  PRIMARY KEY (image_id, ordinal, set_ordinal)
);
CREATE INDEX image_hidden_by_set ON image_hidden (set_id);

-- The work list of one matching transaction, empty outside of it.
CREATE TABLE rematch_package (package_id BIGINT NOT NULL, os_space TEXT NOT NULL, PRIMARY KEY (package_id, os_space));
CREATE TABLE rematch_set (set_id BIGINT NOT NULL, os_space TEXT NOT NULL, PRIMARY KEY (set_id, os_space));
CREATE TABLE rematch_layer (layer_id BIGINT NOT NULL, os_space TEXT NOT NULL, PRIMARY KEY (layer_id, os_space));
CREATE TABLE rematch_image (image_id BIGINT PRIMARY KEY);

-- Advisory generations: immutable files, named by digest. The one in force is
-- the newest with matched_at set: every image's counts are true for it.
CREATE TABLE generation (
  id         {{id}},
  digest     {{bytes}} NOT NULL UNIQUE,
  parent     {{bytes}},
  size       BIGINT    NOT NULL,
  meta       TEXT      NOT NULL,
  created_at BIGINT    NOT NULL,
  matched_at BIGINT    NOT NULL DEFAULT 0
);

-- +goose Down
DROP TABLE generation;
DROP TABLE rematch_image;
DROP TABLE rematch_layer;
DROP TABLE rematch_set;
DROP TABLE rematch_package;
DROP TABLE image_hidden;
DROP TABLE image_layer;
DROP TABLE image;
DROP TABLE layer_count;
DROP TABLE set_count;
DROP TABLE finding;
DROP TABLE package_name;
DROP TABLE layer_set;
DROP TABLE set_package;
DROP TABLE package;
DROP TABLE package_set;
DROP TABLE layer_blob;
DROP TABLE layer;
