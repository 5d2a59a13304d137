package db_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

func TestPostgres(t *testing.T) {
	dbtest.Run(t, func(t *testing.T) *db.DB { return dbtest.OpenPostgres(t, db.Options{}) })
}
