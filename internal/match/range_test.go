package match_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/match/version"
)

// TestInRangeFollowsTheSchema compares with the algorithm as the OSV schema
// words it ("Evaluation"): sort the events, then walk over them. Ours walks
// over the events as they come and sorts nothing.
func TestInRangeFollowsTheSchema(t *testing.T) {
	order := version.Semver()
	random := rand.New(rand.NewPCG(1, 2))
	some := func() string { return fmt.Sprintf("%d.%d.0", random.IntN(4), random.IntN(3)) }
	yes := 0
	for range 20_000 {
		r := gatehouse.Range{Type: "SEMVER", Events: []gatehouse.RangeEvent{{Introduced: "0"}}}
		if random.IntN(2) == 0 {
			r.Events[0].Introduced = some()
		}
		used := map[string]bool{r.Events[0].Introduced: true}
		for range random.IntN(5) {
			v := some()
			if used[v] {
				continue // the schema leaves open what two events at one version mean
			}
			used[v] = true
			r.Events = append(r.Events, []gatehouse.RangeEvent{{Introduced: v}, {Fixed: v}, {LastAffected: v}}[random.IntN(3)])
		}
		if random.IntN(4) == 0 {
			r.Events = append(r.Events, gatehouse.RangeEvent{Limit: some()})
		}
		random.Shuffle(len(r.Events), func(i, j int) { r.Events[i], r.Events[j] = r.Events[j], r.Events[i] })
		v := some()
		want := schemaSays(order, v, r)
		if got := match.InRange(order, v, r); got != want {
			t.Fatalf("%s in %+v: %v, the schema says %v", v, r.Events, got, want)
		}
		if want {
			yes++
		}
	}
	if yes < 2_000 || yes > 18_000 {
		t.Errorf("%d of 20,000 are affected: the cases are lopsided", yes)
	}
}

func schemaSays(order version.Order, v string, r gatehouse.Range) bool {
	compare := func(a, b string) int {
		switch {
		case a == b:
			return 0
		case a == "0":
			return -1
		case b == "0":
			return 1
		}
		c, err := order.Compare(a, b)
		if err != nil {
			panic(err)
		}
		return c
	}
	at := func(e gatehouse.RangeEvent) string { return e.Introduced + e.Fixed + e.LastAffected + e.Limit }
	events := slices.Clone(r.Events)
	slices.SortStableFunc(events, func(a, b gatehouse.RangeEvent) int { return compare(at(a), at(b)) })
	vulnerable, limits, below := false, 0, false
	for _, e := range events {
		switch {
		case e.Limit != "":
			limits++
			below = below || compare(v, e.Limit) < 0
		case e.Introduced != "" && compare(v, e.Introduced) >= 0:
			vulnerable = true
		case e.Fixed != "" && compare(v, e.Fixed) >= 0:
			vulnerable = false
		case e.LastAffected != "" && compare(v, e.LastAffected) > 0:
			vulnerable = false
		}
	}
	return vulnerable && (limits == 0 || below)
}
