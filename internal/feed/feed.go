// Package feed holds the readers of published advisories. Bytes of a feed's own
// format go in, [gatehouse.Advisory] values come out; nothing here dials,
// stores or matches. Each format has its own folder.
package feed
