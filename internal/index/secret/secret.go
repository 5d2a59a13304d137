// Package secret finds keys, tokens and passwords in bytes that stream past, and
// in image configurations. What comes out is a finding with a masked excerpt:
// the secret itself never leaves the package.
//
// One pass over the bytes looks for words with which secrets begin or that stand
// beside them (filter.go); only around such a word a rule is asked (rules.go):
// most are a prefix, an alphabet and a length, the others RE2 expressions on a
// window of bounded size. What remains must look random enough and not like a
// placeholder (allow.go). The work that words without secrets can cause is
// bounded in proportion to the bytes.
//
//	secret.go    Scanner: files, piece by piece
//	filter.go    where is a word of a rule
//	rules.go     what a rule is; rules_*.go are the rules
//	match.go     from a word to a secret
//	wide.go      text in UTF-16
//	elf.go       where a program has its instructions
//	allow.go     what is not looked at and what is no secret
//	config.go    variables, labels and history of an image
package secret

import (
	"bytes"
	"hash/maphash"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// Version changes when the rules or the engine would give another answer for
// equal bytes.
const Version = 2

const (
	// Ahead is how far behind its word a secret may end, Back how far before it
	// it may begin, in bytes. Pieces must overlap by the sum.
	Ahead = 4 << 10
	Back  = 512

	// fileMax is the most secrets that are told of one file.
	fileMax = 100
	// headMax is how much of a file tells whether it is text.
	headMax = 8000
	// The rules may look at workBase bytes, and one in workShare of those that
	// went by, before words without secrets are given up on.
	workBase  = 32 << 20
	workShare = 4
)

// Scanner looks at one file after the other. It is not safe for concurrent use;
// its rules are shared.
type Scanner struct {
	rules *ruleSet
	hits  []hit
	found []match
	seed  maphash.Seed

	// Of the walk.
	passed, worked int64

	// Of the current file.
	path   string
	binary bool
	isWide bool
	wide   wide
	offset int64 // of the end of the last piece
	code   span  // of a program: not looked at
	lines  int   // ends of lines before the end of the last piece
	told   map[uint64]bool
	count  int
	gaveUp bool
}

// NewScanner returns a scanner with all rules.
func NewScanner() *Scanner {
	return &Scanner{rules: rules(), seed: maphash.MakeSeed(), told: map[uint64]bool{}}
}

// Begin starts a file and reports whether it is looked at. path is relative to
// the root of the image.
func (s *Scanner) Begin(path string) bool {
	if allowedPath(path) {
		return false
	}
	s.path, s.binary, s.offset, s.code, s.lines, s.count, s.gaveUp = path, false, 0, span{}, 0, 0, false
	clear(s.told)
	return true
}

// Piece looks at the next bytes of the file, of which the first seen were in the
// last piece already: all of its bytes, or at least Ahead+Back. emit gets each
// finding, with its location and without its path. Piece reports whether it wants
// more of the file.
func (s *Scanner) Piece(b []byte, seen int, last bool, emit func(gatehouse.Finding)) bool {
	if seen == 0 {
		head := b[:min(len(b), headMax)]
		if isPacked(head) {
			return false
		}
		low, isWide := wideText(head)
		s.isWide, s.wide = isWide, wide{low: low, odd: s.wide.odd[:0], text: s.wide.text[:0]}
		s.binary = !isWide && bytes.IndexByte(head, 0) >= 0
		if s.binary && !isProgram(head) {
			return false
		}
		s.code = machineCode(head)
	}
	s.passed += int64(len(b) - seen)
	if s.isWide {
		b, seen = s.wide.narrow(b, seen)
	}
	from, to := max(0, seen-Ahead), len(b)
	if !last {
		to = max(from, len(b)-Ahead)
	}
	s.found = s.found[:0]
	begin := s.offset - int64(seen) // of b in the file
	s.offset += int64(len(b) - seen)
	if s.code.to > 0 {
		lo, hi := clamp(s.code.from-begin, from, to), clamp(s.code.to-begin, from, to)
		s.look(b, from, lo)
		from = hi
	}
	s.look(b, from, to)
	if len(s.found) > 1 {
		s.found = dropOverlaps(s.found)
	}
	before := s.lines // ends of lines before b[seen]
	if len(s.found) > 0 {
		before -= bytes.Count(b[:seen], newline)
		s.tell(b, before, emit)
	}
	if !last {
		s.lines += bytes.Count(b[seen:], newline)
	}
	return !s.gaveUp && s.count < fileMax
}

// GaveUp reports whether the current file has so many look-alikes of secrets
// that the rest of it was not looked at.
func (s *Scanner) GaveUp() bool { return s.gaveUp }

// Full reports whether the current file has more secrets than are told.
func (s *Scanner) Full() bool { return s.count >= fileMax }

var newline = []byte{'\n'}

// look adds to s.found what the rules find at words in b[from:to].
func (s *Scanner) look(b []byte, from, to int) {
	if from >= to {
		return
	}
	s.hits = s.rules.filter.scan(b, from, to, s.hits[:0])
	for _, h := range s.hits {
		for _, at := range s.rules.byWord[h.word] {
			r := &s.rules.list[at]
			if s.binary && !r.binary || r.where != nil && !r.where(s.path) {
				continue
			}
			m, cost, ok := r.match(b, h.at, len(s.rules.filter.words[h.word].text))
			if s.worked += int64(cost); s.worked > workBase+s.passed/workShare {
				s.gaveUp = true
				return
			}
			if ok && !isPlaceholder(b[m.body:m.end], s.path) {
				m.order = at
				s.found = append(s.found, m)
			}
		}
	}
}

// clamp returns v, but at least lo and at most hi.
func clamp(v int64, lo, hi int) int { return int(min(max(v, int64(lo)), int64(hi))) }

// dropOverlaps keeps, of matches that overlap, the one of the first rule.
func dropOverlaps(all []match) []match {
	slices.SortFunc(all, func(a, b match) int {
		if a.order != b.order {
			return a.order - b.order
		}
		return a.start - b.start
	})
	kept := all[:0]
	ends := map[int]int{} // kept spans by start, looked up by neighbours below
	var starts []int
	for _, m := range all {
		at, _ := slices.BinarySearch(starts, m.start+1)
		before := at > 0 && ends[starts[at-1]] > m.start
		behind := at < len(starts) && starts[at] < m.end
		if before || behind {
			continue
		}
		starts = slices.Insert(starts, at, m.start)
		ends[m.start] = m.end
		kept = append(kept, m)
	}
	slices.SortFunc(kept, func(a, b match) int { return a.start - b.start })
	return kept
}

// tell emits what was found in b, which begins after before ends of lines.
func (s *Scanner) tell(b []byte, before int, emit func(gatehouse.Finding)) {
	counted, line := 0, before+1
	for _, m := range s.found {
		key := maphash.Bytes(s.seed, b[m.start:m.end]) ^ uint64(m.order)
		if s.told[key] {
			continue
		}
		s.told[key] = true
		if s.count++; s.count > fileMax {
			return
		}
		line += bytes.Count(b[counted:m.start], newline)
		counted = m.start
		f := s.rules.list[m.order].finding()
		f.Location = &gatehouse.Location{
			Origin: "file", StartLine: line, EndLine: line + bytes.Count(b[m.start:m.end], newline), Excerpt: excerpt(b, m),
		}
		if s.binary {
			f.Location.StartLine, f.Location.EndLine = 0, 0
		}
		emit(f)
	}
}
