package secret

import (
	"encoding/binary"
	"slices"
)

// filter finds words in bytes, all in one pass. It looks at every second
// position only: four bytes from there, hashed, are a bit in a table that fits
// into the processor's nearest cache. Wherever a word of five bytes lies, four of
// its bytes begin at such a position; shorter words are filled up with the bytes
// that may stand around them. Positions do not depend on each other, so that
// several are looked at at once: this is what makes it faster than an automaton,
// in which each byte waits for the one before.
//
// Case is ignored here (bytes are or-ed with 0x20) and looked at afterwards.
type filter struct {
	words []word
	table [1 << (tableBits - 6)]uint64
	grams map[uint32][]gram
}

// word is what is looked for.
type word struct {
	text    string // at least three bytes, lower case with anyCase
	anyCase bool
	before  string // bytes that may stand before a word of three bytes; "": no letter and no digit
	behind  string // bytes that may stand behind one of three or four; "": any
}

// gram says that four bytes may be those of a word that begins shift bytes
// before them.
type gram struct {
	word  int
	shift int // -1 to 1
}

// hit is a word at a place.
type hit struct{ word, at int }

const (
	tableBits = 17
	foldBits  = 0x20
	foldAll   = 0x2020202020202020
	// multiplier is the golden ratio: Knuth's multiplicative hash.
	multiplier = 0x9E3779B1
)

func newFilter(words []word) *filter {
	f := &filter{words: words, grams: map[uint32][]gram{}}
	for i, w := range words {
		t := folded(w.text)
		behind, before := orAny(w.behind), orNoWord(w.before)
		switch {
		case len(t) >= 5:
			f.add(i, 0, string(t[:4]))
			f.add(i, 1, string(t[1:5]))
		case len(t) == 4:
			f.add(i, 0, string(t))
			for _, c := range behind {
				f.add(i, 1, string(t[1:])+string([]byte{c}))
			}
		default:
			for _, c := range behind {
				f.add(i, 0, string(t)+string([]byte{c}))
			}
			for _, c := range before {
				f.add(i, -1, string([]byte{c})+string(t))
			}
		}
	}
	return f
}

func (f *filter) add(word, shift int, text string) {
	key := binary.LittleEndian.Uint32(folded(text))
	g := gram{word, shift}
	if slices.Contains(f.grams[key], g) {
		return
	}
	f.grams[key] = append(f.grams[key], g)
	h := hash(key)
	f.table[h>>6] |= 1 << (h & 63)
}

func hash(v uint32) uint32 { return v * multiplier >> (32 - tableBits) }

// scan appends to hits the words that begin in b[from:to], in order.
func (f *filter) scan(b []byte, from, to int, hits []hit) []hit {
	const step = 6 // bytes: three positions
	i := max(0, from-1)
	end := min(len(b), to+2) // the last position is below
	for ; i+8 <= len(b) && i < end; i += step {
		v := binary.LittleEndian.Uint64(b[i:]) | foldAll
		h0, h1, h2 := hash(uint32(v)), hash(uint32(v>>16)), hash(uint32(v>>32))
		t0, t1, t2 := f.table[h0>>6]>>(h0&63), f.table[h1>>6]>>(h1&63), f.table[h2>>6]>>(h2&63)
		if (t0|t1|t2)&1 == 0 {
			continue
		}
		if t0&1 != 0 {
			hits = f.check(b, i, uint32(v), from, to, hits)
		}
		if t1&1 != 0 {
			hits = f.check(b, i+2, uint32(v>>16), from, to, hits)
		}
		if t2&1 != 0 {
			hits = f.check(b, i+4, uint32(v>>32), from, to, hits)
		}
	}
	// The last few bytes, as if others followed.
	for ; i < end; i += 2 {
		var tail [4]byte
		copy(tail[:], b[i:])
		hits = f.check(b, i, binary.LittleEndian.Uint32(tail[:])|foldAll&0xffffffff, from, to, hits)
	}
	return hits
}

// check looks which words the gram at b[i:] belongs to.
func (f *filter) check(b []byte, i int, gram uint32, from, to int, hits []hit) []hit {
	for _, g := range f.grams[gram] {
		at := i - g.shift
		if at < from || at >= to {
			continue
		}
		if w := &f.words[g.word]; w.at(b[at:]) {
			hits = append(hits, hit{g.word, at})
		}
	}
	return hits
}

// at reports whether b begins with w.
func (w *word) at(b []byte) bool {
	if len(b) < len(w.text) {
		return false
	}
	for i := range len(w.text) {
		c := b[i]
		if w.anyCase && 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != w.text[i] {
			return false
		}
	}
	return true
}

func folded(s string) []byte {
	b := []byte(s)
	for i := range b {
		b[i] |= foldBits
	}
	return b
}

func orAny(s string) []byte {
	if s != "" {
		return []byte(s)
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return all
}

// orNoWord returns what may stand before a word that must not be the end of
// another.
func orNoWord(s string) []byte {
	if s != "" {
		return []byte(s)
	}
	var out []byte
	for c := range 256 {
		if !wordByte[c] {
			out = append(out, byte(c))
		}
	}
	return out
}
