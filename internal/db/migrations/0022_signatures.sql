-- Who signed what, as it was found when it arrived, and what projects ask of a pull.

-- +goose Up
-- Something is, or was, attached to subject, which need not be there. version is
-- random and another one whenever that changes. policies is the digest of the
-- policy set that named the signers of the last check.
CREATE TABLE signature_check (
  repo_id    BIGINT    NOT NULL REFERENCES repository(id),
  subject    {{bytes}} NOT NULL,
  version    {{name}}  NOT NULL,
  policies   {{name}}  NOT NULL DEFAULT '',
  checked_at BIGINT    NOT NULL DEFAULT 0,
  incomplete TEXT      NOT NULL DEFAULT '',
  PRIMARY KEY (repo_id, subject)
);

-- One signature or attestation of subject. signer is what tells two of them apart
-- that one artifact (the manifest) carries; empty: nobody who is known. status: 1
-- valid, 2 nobody is named who could have signed, 3 signed by none of those who
-- are, 4 broken. detail is JSON.
CREATE TABLE signature (
  repo_id    BIGINT    NOT NULL REFERENCES repository(id),
  subject    {{bytes}} NOT NULL,
  artifact   {{bytes}} NOT NULL,
  predicate  {{name}}  NOT NULL,
  signer     {{name}}  NOT NULL,
  status     SMALLINT  NOT NULL,
  format     TEXT      NOT NULL,
  log_index  BIGINT,
  signed_at  BIGINT    NOT NULL,
  expires_at BIGINT    NOT NULL,
  found_at   BIGINT    NOT NULL,
  detail     TEXT      NOT NULL,
  PRIMARY KEY (repo_id, subject, artifact, predicate, signer)
);
CREATE INDEX signature_by_artifact ON signature (repo_id, artifact);

-- What a project asks of an image before it may be pulled. mode: 0 nothing, 1 warn,
-- 2 enforce. policies is a JSON list of names; empty: all that are in force.
CREATE TABLE pull_policy (
  project    {{name}} PRIMARY KEY,
  mode       SMALLINT NOT NULL,
  policies   TEXT     NOT NULL,
  updated_by TEXT     NOT NULL,
  updated_at BIGINT   NOT NULL
);

-- What a tag of signatures pointed at before stays with the image ('.' follows '-').
CREATE INDEX tag_history_attached ON tag_history (repo_id, new_digest) WHERE name >= 'sha256-' AND name < 'sha256.';

-- +goose Down
DROP INDEX tag_history_attached;
DROP TABLE pull_policy;
DROP TABLE signature;
DROP TABLE signature_check;
