-- Documents of the cluster that policies are made of.

-- +goose Up

-- What the cluster has, as it was seen last: policies by cluster/KIND/NAME, and what
-- they refer to by reference/KIND/NAMESPACE/NAME. They count while the cluster is away.
CREATE TABLE cluster_document (
  path   TEXT PRIMARY KEY,
  source TEXT NOT NULL
);

-- When the documents were read from the cluster as a whole, in one row. Before the
-- first time nobody knows which policies there are.
CREATE TABLE cluster_read (
  id BIGINT PRIMARY KEY,
  at BIGINT NOT NULL
);

-- +goose Down
DROP TABLE cluster_read;
DROP TABLE cluster_document;
