package sigstore

import (
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Budget is how much may be added to a log that never forgets, in bytes of entries
// per day, by each replica. As much may come at once; it grows back over the day.
// What is in the log already costs nothing. 0 is no limit.
type Budget struct {
	Address int64 // of one address
	All     int64 // of all together
}

const day = 24 * 60 * 60 // seconds

func (b Budget) bounds() *bounds {
	of := func(n int64) limiter { return limiter{perSecond: float64(n) / day, burst: float64(n)} }
	return &bounds{address: of(b.Address), all: of(b.All)}
}

// Why entries are refused that are whole, for [RekorOptions.Refused].
const (
	RefusedRate    = "rate"           // one address sends too many
	RefusedAddress = "address-budget" // one address has used its budget up
	RefusedAll     = "budget"         // all together have
	RefusedUnknown = "unknown-signer"
)

// knows reports whether all who have signed an entry are known here.
func (r *Rekor) knows(entry logEntry) bool {
	for _, v := range entry.signers {
		if !r.known(v.GetX509Certificate().GetRawBytes(), v.GetPublicKey().GetRawBytes()) {
			return false
		}
	}
	return len(entry.signers) > 0
}

// afford lets an entry into the log by who has signed it, and takes its bytes from
// the budget of those who are known, or from that of all others, who cannot use
// the first up. CodeDenied: only who is known may add. CodeTooMany: nothing is left.
func (r *Rekor) afford(addr string, entry logEntry) (known bool, from *bounds, err error) {
	known, from = r.knows(entry), r.strangers
	switch {
	case known:
		from = r.friends
	case r.knownOnly:
		r.refused(RefusedUnknown)
		return known, nil, gatehouse.Errorf(gatehouse.CodeDenied, "this log takes entries of its own certificate authority and of keys that it knows").
			WithHint("sign with an identity token, or have the key listed in sigstore-log-keys")
	}
	switch wait, all := from.take(addr, len(entry.body), time.Now()); {
	case wait > 0 && all:
		r.refused(RefusedAll)
		return known, nil, later{gatehouse.Errorf(gatehouse.CodeTooMany, "the log has been given what it takes in a day").WithHint("try again later"), wait}
	case wait > 0:
		r.refused(RefusedAddress)
		return known, nil, later{gatehouse.Errorf(gatehouse.CodeTooMany, "this address has added to the log what it may in a day").WithHint("try again later"), wait}
	}
	return known, from, nil
}
