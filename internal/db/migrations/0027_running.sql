-- What was decided of the images that run in the cluster.

-- +goose Up

-- The Pods of one template that one workload owns. since is when the verdict became
-- what it is, for the reasons that it has; told is 1 once the cluster has its Event.
-- doc is JSON: what owns them, images, reasons.
CREATE TABLE running (
  id        {{id}},
  namespace {{name}}  NOT NULL,
  kind      {{name}}  NOT NULL,
  name      {{name}}  NOT NULL,
  template  {{bytes}} NOT NULL,
  pods      BIGINT    NOT NULL,
  verdict   SMALLINT  NOT NULL,
  since     BIGINT    NOT NULL,
  told      SMALLINT  NOT NULL,
  doc       TEXT      NOT NULL,
  UNIQUE (namespace, kind, name, template)
);

-- Where an image runs, by its digest.
CREATE TABLE running_image (
  digest  {{bytes}} NOT NULL,
  running BIGINT    NOT NULL,
  PRIMARY KEY (digest, running)
);
CREATE INDEX running_image_by_running ON running_image (running);

-- +goose Down
DROP TABLE running_image;
DROP TABLE running;
