package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// databaseAgeWarn is the age of the oldest feed from which a scan warns.
// Feeds change several times a day; five days, as in Grype, span a weekend with
// a holiday.
const databaseAgeWarn = 5 * 24 * time.Hour

// bindDatabaseAge adds --max-db-age, whose zero value only warns.
func bindDatabaseAge(cmd *cobra.Command, max *time.Duration) {
	cmd.Flags().Var((*daysFlag)(max), "max-db-age", "fail if one of the feeds is older than this, for example 24h or 3d (default: warn after "+config.FormatDuration(databaseAgeWarn)+")")
}

// daysFlag is a duration that may be written in days.
type daysFlag time.Duration

func (d *daysFlag) Type() string { return "duration" }

func (d *daysFlag) String() string {
	if *d == 0 {
		return ""
	}
	return config.FormatDuration(time.Duration(*d))
}

func (d *daysFlag) Set(s string) error {
	v, err := config.ParseDuration(s)
	if err == nil && v == 0 {
		err = fmt.Errorf("%q allows no age at all", s)
	}
	*d = daysFlag(v)
	return err
}

// checkDatabaseAge tells of advisories that are old: a warning, or an error
// where they are older than max (0: no limit). What counts is the time of the feed
// that is the most out of date, as its publisher says it: an old export does not
// look fresh because it was imported today, nor because another feed is new.
func (a *app) checkDatabaseAge(d report.Database, max time.Duration) error {
	what, at := "the feed "+d.OldestFeed, d.OldestAt
	if d.OldestFeed == "" || at.Equal(d.UpdatedAt) {
		what, at = "the newest advisory", d.UpdatedAt
	}
	if at.IsZero() {
		switch {
		case max == 0:
			return nil // what is not covered is said elsewhere
		case d.OldestFeed != "":
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "how old %s is cannot be said, and --max-db-age allows %s: none of its advisories has a date", what, config.FormatDuration(max)).
				WithHint("run `gatehouse db update`; `gatehouse db status` shows each feed")
		}
		return gatehouse.Errorf(gatehouse.CodeNotFound, "how old the advisories are cannot be said: there are none").
			WithHint("run `gatehouse db update`")
	}
	age := time.Since(at)
	if max > 0 && age > max {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "%s is %s old, and --max-db-age allows %s", what, ageText(age), config.FormatDuration(max)).
			WithHint("run `gatehouse db update`, or without a network `gatehouse db import` with a newer file; `gatehouse db status` shows each feed")
	}
	if age > databaseAgeWarn {
		a.say("warning: %s is %s old, so newer vulnerabilities are not found; run `gatehouse db update`", what, ageText(age))
	}
	return nil
}

// ageText is an age as people say it, rounded down.
func ageText(d time.Duration) string {
	unit := func(n int, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return fmt.Sprintf("%d %ss", n, name)
	}
	switch {
	case d >= 48*time.Hour:
		return unit(int(d/(24*time.Hour)), "day")
	case d >= time.Hour:
		return unit(int(d/time.Hour), "hour")
	}
	return unit(max(0, int(d/time.Minute)), "minute")
}
