// Package faults breaks what Gatehouse stands on and looks at what clients then
// see: the binary itself is killed, its disk fills, its database and its storage
// go away, its clients are slow. Servers are real processes, PostgreSQL and S3
// are real servers.
//
// Pushers (pusher_test.go) push through a small client of their own
// (client_test.go) and write into a ledger (ledger_test.go) what they were
// promised; the check (check_test.go) holds the registry to it. Everything random
// comes from one seed, which is printed; GATEHOUSE_TEST_SEED repeats it.
package faults
