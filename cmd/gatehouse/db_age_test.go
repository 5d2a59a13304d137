package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// TestDatabaseAge: an old database is a warning, with --max-db-age an error, and
// what counts is the newest advisory's own time.
func TestDatabaseAge(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		age   time.Duration // 0: no advisories
		max   string
		quiet bool
		says  string
		code  gatehouse.Code
	}{
		"fresh":                 {age: time.Hour},
		"fresh enough":          {age: time.Hour, max: "2h"},
		"a holiday old":         {age: 4 * day},
		"old":                   {age: 6 * day, says: "warning: the newest advisory is 6 days old"},
		"old, quietly":          {age: 6 * day, quiet: true},
		"old, as is allowed":    {age: 6 * day, max: "7d", says: "warning: the newest advisory is 6 days old"},
		"too old":               {age: 6 * day, max: "5d", code: gatehouse.CodeUnavailable},
		"too old for an hour":   {age: 61 * time.Minute, max: "1h", code: gatehouse.CodeUnavailable},
		"from the future":       {age: -time.Hour, max: "1h"},
		"nothing":               {},
		"nothing, with a limit": {max: "365d", code: gatehouse.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			var said bytes.Buffer
			a := &app{stderr: &said, quiet: c.quiet}
			var max time.Duration
			cmd := &cobra.Command{Use: "scan", RunE: func(*cobra.Command, []string) error { return nil }}
			bindDatabaseAge(cmd, &max)
			if c.max != "" {
				cmd.SetArgs([]string{"--max-db-age", c.max})
			} else {
				cmd.SetArgs(nil)
			}
			if err := cmd.Execute(); err != nil {
				t.Fatal(err)
			}
			var d report.Database
			if c.age != 0 {
				d.UpdatedAt = time.Now().Add(-c.age)
			}
			err := a.checkDatabaseAge(d, max)
			if gatehouse.CodeOf(err) != c.code || err != nil && !strings.Contains(gatehouse.HintOf(err), "db update") {
				t.Errorf("%v, hint %q", err, gatehouse.HintOf(err))
			}
			if (said.Len() > 0) != (c.says != "") || !strings.HasPrefix(said.String(), c.says) {
				t.Errorf("it says %q, want %q", said.String(), c.says)
			}
		})
	}
}

// TestDatabaseAgeOfTheOldest: a feed that nobody looks after is told of, however
// fresh the others are.
func TestDatabaseAgeOfTheOldest(t *testing.T) {
	const day = 24 * time.Hour
	var said bytes.Buffer
	a := &app{stderr: &said}
	d := report.Database{UpdatedAt: time.Now(), OldestFeed: "osv/Debian", OldestAt: time.Now().Add(-9*day - time.Hour)}
	err := a.checkDatabaseAge(d, 5*day)
	if want := "the feed osv/Debian is 9 days old, and --max-db-age allows 5d"; err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
	if err := a.checkDatabaseAge(d, 0); err != nil || !strings.HasPrefix(said.String(), "warning: the feed osv/Debian is 9 days old") {
		t.Errorf("%v, it says %q", err, said.String())
	}
	d.OldestAt = time.Time{} // records without a date
	if err := a.checkDatabaseAge(d, 5*day); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("a feed of no known age: %v", err)
	}
}

func TestDatabaseAgeFlag(t *testing.T) {
	for _, bad := range []string{"0", "0s", "-1h", "soon", "5"} {
		var max time.Duration
		cmd := &cobra.Command{Use: "scan", SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) error { return nil }}
		cmd.SetOut(io.Discard)
		bindDatabaseAge(cmd, &max)
		cmd.SetArgs([]string{"--max-db-age", bad})
		if err := cmd.Execute(); err == nil {
			t.Errorf("--max-db-age %s is taken for %s", bad, max)
		}
	}
}
