-- How many upload sessions somebody has open is asked before each new one.

-- +goose Up
CREATE INDEX upload_by_actor ON upload (actor) WHERE state = 0;

-- +goose Down
DROP INDEX upload_by_actor;
