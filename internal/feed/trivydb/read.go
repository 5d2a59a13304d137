package trivydb

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

// Other buckets of the uppermost level.
const (
	bucketSources  = "data-source"
	bucketProducts = "Red Hat CPE"
	productsMax    = 1 << 16
)

// errStop ends a walk whose reader has enough.
var errStop = errors.New("stop")

// Records reads all records: first one per CVE, then each publisher's, by id.
// The stream ends at its first error: CodeInvalid for a damaged database,
// CodeTooLarge beyond the limits, or the end of ctx.
func (db *DB) Records(ctx context.Context) iter.Seq2[gatehouse.Advisory, error] {
	return func(yield func(gatehouse.Advisory, error) bool) {
		r := &reading{db: db, ctx: ctx, yield: yield}
		if err := r.run(); err != nil && !errors.Is(err, errStop) {
			yield(gatehouse.Advisory{}, err)
		}
	}
}

// reading is one pass over a database.
type reading struct {
	db       *DB
	ctx      context.Context // of the one Records that made it
	yield    func(gatehouse.Advisory, error) bool
	rated    map[string]ratings
	products []string // OSV ecosystems of Red Hat's products, by number
	flaws    bucket
}

func (r *reading) run() error {
	r.db.bolt.renew()
	var err error
	if r.rated, err = r.allFlaws(); err != nil {
		return err
	}
	if err := r.readProducts(); err != nil {
		return err
	}
	platforms, err := r.platforms()
	if err != nil {
		return err
	}
	for _, prefix := range slices.Sorted(maps.Keys(platforms)) {
		if err := r.publish(platforms[prefix]); err != nil {
			return err
		}
	}
	return nil
}

// opened is a platform with its bucket.
type opened struct {
	platform
	bucket bucket
}

// platforms opens all buckets of advisories, by their publisher's prefix.
func (r *reading) platforms() (map[string][]opened, error) {
	sources := map[string]string{}
	err := r.each(bucketSources, func(key, value []byte) error {
		var s struct{ ID string }
		if err := json.Unmarshal(value, &s); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the data source %q is malformed: %w", field.Clip(string(key)), err)
		}
		sources[string(key)] = s.ID
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := map[string][]opened{}
	err = r.db.bolt.top().each(func(key, value []byte, isBucket bool) error {
		if !isBucket || len(key) > field.NameMax {
			return nil
		}
		p, ok := platformOf(string(key), sources[string(key)])
		if !ok {
			return nil
		}
		b, err := r.db.bolt.sub(value)
		if err != nil {
			return err
		}
		out[p.prefix] = append(out[p.prefix], opened{p, b})
		return nil
	})
	return out, err
}

// open returns a bucket of the uppermost level; ok is false if there is none.
func (r *reading) open(name string) (b bucket, ok bool, err error) {
	err = r.db.bolt.top().each(func(key, value []byte, isBucket bool) error {
		if !isBucket || string(key) != name {
			return nil
		}
		ok = true
		b, err = r.db.bolt.sub(value)
		return err
	})
	return b, ok, err
}

// each calls f for every value of a bucket of the uppermost level.
func (r *reading) each(name string, f func(key, value []byte) error) error {
	b, ok, err := r.open(name)
	if err != nil || !ok {
		return err
	}
	return b.each(func(key, value []byte, isBucket bool) error {
		if isBucket {
			return nil
		}
		return f(key, value)
	})
}

// readProducts reads which number stands for which of Red Hat's products.
func (r *reading) readProducts() error {
	b, ok, err := r.open(bucketProducts)
	if err != nil || !ok {
		return err
	}
	return b.each(func(key, value []byte, isBucket bool) error {
		if !isBucket || string(key) != "cpe" {
			return nil
		}
		names, err := r.db.bolt.sub(value)
		if err != nil {
			return err
		}
		return names.each(func(key, value []byte, _ bool) error {
			n, err := strconv.Atoi(string(key))
			var cpe string
			if err != nil || n < 0 || n >= productsMax || json.Unmarshal(value, &cpe) != nil || field.Check("cpe", cpe, field.NameMax) != nil {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "the product %q is malformed", field.Clip(string(key)))
			}
			for len(r.products) <= n {
				r.products = append(r.products, "")
			}
			r.products[n] = gatehouse.RedHatSpace(cpe)
			return nil
		})
	})
}

// entry is what one publisher says of one package in one release and one flaw,
// as numbers of texts: there are millions.
type entry struct {
	record, flaw, name, value uint32
	platform                  uint32
}

// texts numbers equal texts alike.
type texts struct {
	list  []string
	at    map[string]uint32
	bytes int64
}

func (t *texts) number(b []byte) uint32 {
	if n, ok := t.at[string(b)]; ok {
		return n
	}
	if t.at == nil {
		t.at = map[string]uint32{}
	}
	n := uint32(len(t.list))
	s := string(b)
	t.list = append(t.list, s)
	t.at[s] = n
	t.bytes += int64(len(s))
	return n
}

// collected is all that one publisher says.
type collected struct {
	platforms                   []opened
	entries                     []entry
	records, flaws, names, says texts
	parsed                      map[uint32]*said
}

// publish gives the records of one publisher.
func (r *reading) publish(platforms []opened) error {
	c := &collected{platforms: platforms, parsed: map[uint32]*said{}}
	for i, p := range platforms {
		if err := r.collect(c, uint32(i), p); err != nil {
			return err
		}
	}
	rank := c.records.ranks()
	slices.SortFunc(c.entries, func(a, b entry) int {
		return cmp.Or(
			cmp.Compare(rank[a.record], rank[b.record]), cmp.Compare(a.platform, b.platform),
			cmp.Compare(a.name, b.name), cmp.Compare(a.flaw, b.flaw))
	})
	for i := 0; i < len(c.entries); {
		end := i + 1
		for end < len(c.entries) && c.entries[end].record == c.entries[i].record {
			end++
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		a, err := r.record(c, c.entries[i:end])
		if err != nil {
			return err
		}
		if !r.yield(a, nil) {
			return errStop
		}
		i = end
	}
	if platforms[0].format == formatRedHat {
		return r.rateOnly(platforms[0].publisher, c)
	}
	return nil
}

// ranks returns each text's place in alphabetical order.
func (t *texts) ranks() []uint32 {
	order := make([]uint32, len(t.list))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return strings.Compare(t.list[a], t.list[b]) })
	rank := make([]uint32, len(order))
	for i, n := range order {
		rank[n] = uint32(i)
	}
	return rank
}

// collect takes down one platform's bucket: packages, in each its flaws.
func (r *reading) collect(c *collected, number uint32, p opened) error {
	return p.bucket.each(func(key, value []byte, isBucket bool) error {
		if !isBucket {
			return nil
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := field.Check("package", string(key), field.NameMax); err != nil {
			return err
		}
		name := c.names.number(key)
		b, err := r.db.bolt.sub(value)
		if err != nil {
			return err
		}
		return b.each(func(key, value []byte, isBucket bool) error {
			if isBucket {
				return nil
			}
			if err := field.Check("vulnerability", string(key), field.IDMax); err != nil {
				return err
			}
			if len(c.entries) >= min(r.db.limits.Entries, math.MaxInt32) {
				return gatehouse.Errorf(gatehouse.CodeTooLarge, "%s: there are more than %d entries", p.platform.bucket, r.db.limits.Entries)
			}
			e := entry{flaw: c.flaws.number(key), name: name, value: c.says.number(value), platform: number}
			id := ""
			if p.format == formatLanguage { // whose own id is in the value
				s, err := r.parse(c, e)
				if err != nil {
					return err
				}
				id = p.recordID(string(key), s.vendors)
			} else {
				id = p.recordID(string(key), nil)
			}
			e.record = c.records.number([]byte(id))
			c.entries = append(c.entries, e)
			if c.says.bytes+c.names.bytes+c.flaws.bytes > r.db.limits.TextBytes {
				return gatehouse.Errorf(gatehouse.CodeTooLarge, "%s: the texts of its entries are longer than %d bytes", p.platform.bucket, r.db.limits.TextBytes)
			}
			return nil
		})
	})
}

// parse reads an entry's value, once for all that are equal.
func (r *reading) parse(c *collected, e entry) (*said, error) {
	if s, ok := c.parsed[e.value]; ok {
		return s, nil
	}
	p := c.platforms[e.platform]
	s, err := parseAdvisory(c.says.list[e.value], p.format, r.products)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeOf(err), "%s, %s, %s: %w", p.platform.bucket, c.names.list[e.name], c.flaws.list[e.flaw], err)
	}
	c.parsed[e.value] = s
	return s, nil
}

// record puts together what a publisher says of one flaw.
func (r *reading) record(c *collected, entries []entry) (gatehouse.Advisory, error) {
	first := entries[0]
	p := c.platforms[first.platform]
	a := gatehouse.Advisory{ID: c.records.list[first.record], Source: Source}
	var flaws, vendors, covers []string
	type about struct {
		space, name string
		value       uint32
	}
	seen := map[about]bool{}
	for _, e := range entries {
		s, err := r.parse(c, e)
		if err != nil {
			return a, err
		}
		flaws, vendors, covers = append(flaws, c.flaws.list[e.flaw]), append(vendors, s.vendors...), append(covers, s.covers...)
		space, name := c.platforms[e.platform].space, c.names.list[e.name]
		// NuGet's packages stand there in lower case and as they are written.
		this := about{space, gatehouse.NormalName(space, name), e.value}
		if seen[this] {
			continue
		}
		seen[this] = true
		for i, one := range s.affected {
			spaces := []string{space}
			if s.spaces != nil {
				spaces = s.spaces[i]
			}
			if len(a.Affected)+len(spaces) > r.db.limits.Affected {
				return a, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s affects more than %d packages in products", field.Clip(a.ID), r.db.limits.Affected)
			}
			for _, space := range spaces {
				a.Affected = append(a.Affected, at(one, space, name))
			}
		}
	}
	other := func(names ...[]string) []string {
		list := slices.Concat(names...)
		slices.Sort(list)
		return slices.DeleteFunc(slices.Compact(list), func(n string) bool { return n == a.ID })
	}
	if p.format == formatLanguage {
		a.Aliases = other(flaws, vendors) // the same flaw
	} else {
		a.Upstream = other(flaws, covers)
		a.Related = other(vendors) // errata, which repair several flaws
	}
	return a, r.rate(p, flaws[0], &a)
}

// at says of a package what was said without a name. A module's package has its
// stream in front: "nodejs:16::npm".
func at(one gatehouse.Affected, space, name string) gatehouse.Affected {
	if module, rest, ok := strings.Cut(name, "::"); ok && strings.Contains(module, ":") {
		name, one.Modules = rest, []string{module}
	}
	one.Space, one.Name = space, gatehouse.NormalName(space, name)
	return one
}

// rate sets the publisher's own rating of a flaw, and the texts where the flaw
// has no record of its own, not being a CVE.
func (r *reading) rate(p opened, id string, a *gatehouse.Advisory) error {
	a.Severity, a.SeveritySource = p.rating(r.rated[id])
	if isCVE(id) {
		return nil
	}
	value, found, err := r.flaws.get([]byte(id))
	if err != nil || !found {
		return err
	}
	f, err := parseFlaw(id, value)
	if err != nil {
		return err
	}
	f.describe(a)
	if p.prefix == suse.prefix {
		a.Upstream = append(a.Upstream, covered(f.References)...)
	}
	return nil
}

// covered finds the CVEs that SUSE's updates are for: only their references name
// them ("https://www.suse.com/security/cve/CVE-2024-0001/").
func covered(references []string) []string {
	var out []string
	for _, s := range references {
		_, rest, ok := strings.Cut(s, "/security/cve/")
		id, _, _ := strings.Cut(rest, "/")
		id = strings.TrimSuffix(id, ".html")
		if ok && isCVE(id) && field.Check("id", id, field.IDMax) == nil {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// rateOnly gives records without packages for flaws that a publisher rates and
// tells of in errata only, whose own ratings are those of the worst flaw.
func (r *reading) rateOnly(p publisher, c *collected) error {
	for _, id := range slices.Sorted(maps.Keys(r.rated)) {
		s, source := p.rating(r.rated[id])
		own := p.recordID(id, nil)
		if _, given := c.records.at[own]; given || s == gatehouse.SeverityUnknown || !isCVE(id) {
			continue
		}
		if !r.yield(gatehouse.Advisory{ID: own, Source: Source, Upstream: []string{id}, Severity: s, SeveritySource: source}, nil) {
			return errStop
		}
	}
	return nil
}
