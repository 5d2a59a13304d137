package secret

import "encoding/binary"

// filter finds words in bytes, all in one pass. It looks at every second
// position only: four bytes from there, hashed, are a place in a table. Wherever
// a word of five bytes lies, four of its bytes begin at such a position; shorter
// words are filled up with the bytes that may stand around them. Positions do not
// depend on each other, so that the processor looks at several at once: this is
// what makes it faster than an automaton, in which each byte waits for the one
// before.
//
// Case is ignored here (bytes are or-ed with 0x20) and looked at afterwards.
type filter struct {
	words []word
	// table has 1 at the hash of each gram. It fits into the second cache.
	table [1 << tableBits]uint8
	// grams are chained by heads, which is indexed by a part of the hash.
	heads [1 << headBits]int32
	grams []gram
}

// word is what is looked for.
type word struct {
	text    string // at least three bytes, lower case with anyCase
	anyCase bool
	before  string // bytes that may stand before a word of three bytes; "": of ASCII, but no letter and no digit
	behind  string // bytes that may stand behind one of three or four; "": any of ASCII
}

// gram says that four bytes may be those of a word that begins shift bytes
// before them.
type gram struct {
	key   uint32 // the bytes, folded, little-endian
	word  int32
	shift int32 // -1 to 1
	next  int32 // of the chain; 0 ends it
}

// hit is a word at a place.
type hit struct{ word, at int }

const (
	tableBits = 18
	headBits  = 13
	foldBits  = 0x20
	foldAll   = 0x2020202020202020
	// multiplier is the golden ratio: Knuth's multiplicative hash.
	multiplier = 0x9E3779B1
)

func newFilter(words []word) *filter {
	f := &filter{words: words, grams: make([]gram, 1)}
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
	h := key * multiplier
	head := &f.heads[h>>(32-headBits)]
	for at := *head; at != 0; at = f.grams[at].next {
		if g := f.grams[at]; g.key == key && int(g.word) == word && int(g.shift) == shift {
			return // two bytes that are one without case
		}
	}
	f.table[h>>(32-tableBits)] = 1
	f.grams = append(f.grams, gram{key, int32(word), int32(shift), *head})
	*head = int32(len(f.grams) - 1)
}

// Four-byte groups are looked at in blocks: from two loads of eight bytes, six
// bytes apart, six positions.
const (
	blockStep = 12
	blockSize = blockStep + 2
)

// next returns the first i from at on, in steps of a block, at which a gram may
// be, or where less than a block is left. It is kept free of calls, so that all
// it works with stays in registers.
func (f *filter) next(b []byte, i int) int {
	const shift = 32 - tableBits
	t := &f.table
	for ; i+blockSize <= len(b); i += blockStep {
		v := binary.LittleEndian.Uint64(b[i:i+8]) | foldAll
		w := binary.LittleEndian.Uint64(b[i+6:i+14]) | foldAll
		if t[uint32(v)*multiplier>>shift]|t[uint32(v>>16)*multiplier>>shift]|t[uint32(v>>32)*multiplier>>shift]|
			t[uint32(w)*multiplier>>shift]|t[uint32(w>>16)*multiplier>>shift]|t[uint32(w>>32)*multiplier>>shift] != 0 {
			break
		}
	}
	return i
}

// scan appends to hits the words that begin in b[from:to], in no order.
func (f *filter) scan(b []byte, from, to int, hits []hit) []hit {
	i := max(0, from-1)
	end := min(len(b), to+1) // grams of words before to begin before it
	for {
		i = f.next(b[:min(len(b), end+blockSize)], i)
		if i+blockSize > len(b) || i >= end {
			break
		}
		for at := i; at < i+blockStep; at += 2 {
			key := binary.LittleEndian.Uint32(b[at:]) | foldAll&0xffffffff
			if f.table[key*multiplier>>(32-tableBits)] != 0 {
				hits = f.check(b, at, key, from, to, hits)
			}
		}
		i += blockStep
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
func (f *filter) check(b []byte, i int, key uint32, from, to int, hits []hit) []hit {
	for next := f.heads[key*multiplier>>(32-headBits)]; next != 0; {
		g := &f.grams[next]
		if next = g.next; g.key != key {
			continue
		}
		at := i - int(g.shift)
		if at < from || at >= to {
			continue
		}
		if w := &f.words[g.word]; w.at(b[at:]) {
			hits = append(hits, hit{int(g.word), at})
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
	var all []byte
	for c := byte(' '); c < 0x7f; c++ {
		all = append(all, c)
	}
	return append(all, '\n')
}

// orNoWord returns what may stand before a word that must not be the end of
// another.
func orNoWord(s string) []byte {
	if s != "" {
		return []byte(s)
	}
	out := []byte{0, '\t', '\n', '\r'}
	for c := byte(' '); c < 0x7f; c++ {
		if !wordByte[c] {
			out = append(out, c)
		}
	}
	return out
}
