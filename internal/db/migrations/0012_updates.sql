-- The feeds that are looked at by themselves.

-- +goose Up
-- What the last looks at a feed came to. What was taken over stands in the
-- generation itself. Times are 0 where there is none.
CREATE TABLE feed_state (
  feed         {{name}} PRIMARY KEY,
  source       TEXT     NOT NULL,
  last_attempt BIGINT   NOT NULL,
  last_success BIGINT   NOT NULL,
  failures     INTEGER  NOT NULL,
  error        TEXT     NOT NULL,
  next_attempt BIGINT   NOT NULL,
  not_before   BIGINT   NOT NULL, -- the source does not want to be asked before
  absent       SMALLINT NOT NULL, -- 1: it is not published there
  forced       SMALLINT NOT NULL  -- 1: the next look takes everything anew
);

-- +goose Down
DROP TABLE feed_state;
