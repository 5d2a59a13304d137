package advisory

import (
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// removeFeed takes a feed out with all that it brought. What its records said of
// severities changes other feeds' findings, as when each was withdrawn.
func (b *builder) removeFeed(name string) error {
	state, ok := b.meta.Feed(name)
	if !ok {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "the database has no feed %q", name).
			WithHint("`gatehouse db status` lists its feeds")
	}
	if err := b.begin(gatehouse.Publication{Feed: name, Whole: true}); err != nil {
		return err
	}
	if err := b.removeVanished(); err != nil {
		return err
	}
	b.meta.Feeds = slices.DeleteFunc(b.meta.Feeds, func(f Feed) bool { return f.Name == name })
	b.meta.Sources = slices.DeleteFunc(b.meta.Sources, func(s string) bool { return s == state.Source })
	another := slices.ContainsFunc(b.meta.Feeds, func(f Feed) bool { return f.Format == state.Format })
	if state.isTable() && !another { // there is one table per format, the last one's
		table := map[string]string{gatehouse.FormatKEV: overlayKEV, gatehouse.FormatEPSS: overlayEPSS}[state.Format]
		if err := b.exec("DELETE FROM overlay WHERE name = $1", table); err != nil {
			return err
		}
	}
	return b.exec("DELETE FROM feed WHERE n = $1", b.feed.n)
}

// Named lists the feeds that names stand for: each its own, or with a slash
// behind it all parts of a group ("nvd/"). Errors: CodeNotFound.
func (m Meta) Named(names []string) (out []string, err error) {
	for _, name := range names {
		found := false
		for _, f := range m.Feeds {
			if f.Name != name && !(strings.HasSuffix(name, "/") && strings.HasPrefix(f.Name, name)) {
				continue
			}
			found = true
			if !slices.Contains(out, f.Name) {
				out = append(out, f.Name)
			}
		}
		if !found {
			return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "the database has no feed %q", name).
				WithHint("`gatehouse db status` lists its feeds")
		}
	}
	return out, nil
}
