-- What happened, who did it, what is to be done.

-- +goose Up
CREATE TABLE event (
  seq     {{id}},
  type    {{name}} NOT NULL,
  at      BIGINT NOT NULL,
  actor   TEXT   NOT NULL DEFAULT '',
  repo    TEXT   NOT NULL DEFAULT '',
  tag     TEXT   NOT NULL DEFAULT '',
  digest  {{bytes}},
  payload TEXT   NOT NULL DEFAULT ''
);

CREATE INDEX event_by_type ON event (type, seq);

CREATE TABLE audit (
  seq      {{id}},
  at       BIGINT NOT NULL,
  actor    TEXT   NOT NULL,
  addr     TEXT   NOT NULL DEFAULT '',
  action   TEXT   NOT NULL,
  resource TEXT   NOT NULL,
  detail   TEXT   NOT NULL DEFAULT ''
);

-- Durable work. state: 0 ready, 1 leased, 2 done, 3 failed for good. A second
-- job of the same kind and key is not added while one is ready.
CREATE TABLE job (
  id           {{id}},
  kind         {{name}} NOT NULL,
  key          {{name}} NOT NULL,
  payload      TEXT     NOT NULL DEFAULT '',
  state        SMALLINT NOT NULL DEFAULT 0,
  attempts     INTEGER  NOT NULL DEFAULT 0,
  run_at       BIGINT   NOT NULL,
  lease        TEXT     NOT NULL DEFAULT '',
  leased_until BIGINT   NOT NULL DEFAULT 0,
  error        TEXT     NOT NULL DEFAULT '',
  created_at   BIGINT   NOT NULL,
  updated_at   BIGINT   NOT NULL
);
CREATE UNIQUE INDEX job_ready_once ON job (kind, key) WHERE state = 0;
CREATE INDEX job_claim ON job (run_at, id) WHERE state = 0;
CREATE INDEX job_leased ON job (leased_until) WHERE state = 1;
CREATE INDEX job_leased_key ON job (kind, key) WHERE state = 1;
CREATE INDEX job_ended ON job (updated_at) WHERE state > 1;

-- +goose Down
DROP TABLE job;
DROP TABLE audit;
DROP TABLE event;
