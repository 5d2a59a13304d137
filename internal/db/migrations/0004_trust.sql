-- Who may come in, and by which policies images are judged.

-- +goose Up
CREATE TABLE account (
  name       {{name}} PRIMARY KEY,
  password   TEXT     NOT NULL, -- bcrypt
  admin      SMALLINT NOT NULL,
  created_at BIGINT   NOT NULL,
  updated_at BIGINT   NOT NULL
);

-- A policy document as the user wrote it.
CREATE TABLE policy (
  name       {{name}} PRIMARY KEY,
  source     TEXT   NOT NULL,
  updated_by TEXT   NOT NULL,
  updated_at BIGINT NOT NULL
);

CREATE TABLE decision (
  id        {{name}} PRIMARY KEY,
  at        BIGINT   NOT NULL,
  verdict   SMALLINT NOT NULL,
  doc       TEXT     NOT NULL
);
CREATE INDEX decision_by_time ON decision (at);

CREATE TABLE setting (
  key   {{name}} PRIMARY KEY,
  value TEXT NOT NULL
);

-- +goose Down
DROP TABLE setting;
DROP TABLE decision;
DROP TABLE policy;
DROP TABLE account;
