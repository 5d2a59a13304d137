package secret

import (
	"bytes"
	"math"
)

// match is a secret in a piece: b[start:end], of which b[body:end] is what must
// not be shown.
type match struct {
	start, body, end int
	order            int  // of the rule
	host             bool // of an address
}

// match asks the rule about a word of length n at b[at:]. cost is how many bytes
// were looked at by a pattern.
func (r *rule) match(b []byte, at, n int) (m match, cost int, ok bool) {
	if r.alphabet != nil {
		m, ok = r.token(b, at, n)
		cost = 1 + m.end - m.start
	} else {
		m, cost, ok = r.shape(b, at)
	}
	if !ok || entropy(b[m.body:m.end]) < r.entropy || r.check != nil && !r.check(b[m.body:m.end]) {
		return match{}, cost, false
	}
	return m, cost, true
}

// token matches by hand: that is some twenty times faster than an expression.
func (r *rule) token(b []byte, at, n int) (match, bool) {
	m := match{start: at, body: at + n, end: at + n}
	if at > 0 && wordByte[b[at-1]] {
		return m, false
	}
	for m.end < len(b) && r.alphabet.has[b[m.end]] {
		if m.end++; m.end-m.body > r.most {
			return m, false
		}
	}
	return m, m.end-m.body >= r.least && (m.end == len(b) || !wordByte[b[m.end]])
}

// shape matches the pattern on its window.
func (r *rule) shape(b []byte, at int) (m match, cost int, ok bool) {
	from, to := max(0, at-r.back), min(len(b), at+r.ahead)
	if r.back == 0 && !r.anyCase && at > 0 && wordByte[b[at]] && wordByte[b[at-1]] || r.quick != nil && !r.quick(b[at:to]) {
		return match{}, 8, false
	}
	if !r.lines {
		if i := bytes.IndexByte(b[at:to], '\n'); i >= 0 {
			to = at + i
		}
		if i := bytes.LastIndexByte(b[from:at], '\n'); i >= 0 {
			from += i + 1
		}
	}
	// A pattern costs something before it has looked at anything.
	const start = 64
	place := r.pattern().FindSubmatchIndex(b[from:to])
	cost = to - from + start
	if place == nil {
		return match{}, cost, false
	}
	lo, hi := place[0], place[1]
	if len(place) >= 4 && place[2] >= 0 {
		lo, hi = place[2], place[3]
	}
	if hi <= lo {
		return match{}, cost, false
	}
	if r.named && !SecretName(settingName(b, at)) {
		return match{}, cost, false
	}
	m = match{start: from + lo, body: from + lo, end: from + hi, host: r.host}
	if r.shown != nil {
		m.body = min(m.start+r.shown(b[m.start:m.end]), m.end)
		return m, cost, true
	}
	// The word itself says what it is and may be shown.
	if w := r.prefix(b[m.start:m.end]); w > 0 && w < m.end-m.start {
		m.body += w
	}
	return m, cost, true
}

// settingName returns the name that the word at b[at:] is part of, "" in a
// comment.
func settingName(b []byte, at int) string {
	isName := func(c byte) bool { return wordByte[c] || c == '-' || c == '.' }
	from, to := at, at
	for from > 0 && at-from < 128 && isName(b[from-1]) {
		from--
	}
	for to < len(b) && to-at < 128 && isName(b[to]) {
		to++
	}
	line := b[bytes.LastIndexByte(b[:from], '\n')+1 : from]
	line = bytes.TrimLeft(line[max(0, len(line)-Back):], " \t")
	if len(line) > 0 && (line[0] == '#' || line[0] == ';' || bytes.HasPrefix(line, []byte("//")) || bytes.HasPrefix(line, []byte("<!--"))) {
		return ""
	}
	return string(bytes.Trim(b[from:to], "-."))
}

// prefix returns the length of the word that secret begins with.
func (r *rule) prefix(secret []byte) int {
	if r.anyCase {
		return 0
	}
	for _, w := range r.words {
		if bytes.HasPrefix(secret, []byte(w)) {
			return len(w)
		}
	}
	return 0
}

// entropy is Shannon's, in bits per byte.
func entropy(b []byte) float64 {
	if len(b) == 0 {
		return 0
	}
	var counts [256]int
	for _, c := range b {
		counts[c]++
	}
	sum, n := 0.0, float64(len(b))
	for _, c := range counts {
		if c > 0 {
			p := float64(c) / n
			sum -= p * math.Log2(p)
		}
	}
	return sum
}

const (
	mask = "********"
	// nameMax is the most that is shown of what a secret is assigned to.
	nameMax = 48
)

// excerpt shows the name that the secret is assigned to, the prefix that tells
// its kind, and nothing of the secret or of what else stands in the line, where
// the next secret may be.
func excerpt(b []byte, m match) string {
	if m.host { // before it is the user, which may be a token
		end := min(m.end+1, len(b))
		for end < len(b) && end-m.end < nameMax && (alnum.has[b[end]] || b[end] == '.' || b[end] == '-') {
			end++
		}
		return mask + string(b[m.end:end])
	}
	name := assignedName(b[max(0, m.start-nameMax-8):m.start])
	shown := b[m.start:m.body]
	if i := bytes.IndexByte(shown, '\n'); i >= 0 {
		shown = shown[:i]
	}
	return name + string(shown) + mask
}

// assignedName returns the end of line as far as it is a name and what assigns,
// "" if it is anything else.
func assignedName(line []byte) string {
	if i := bytes.LastIndexByte(line, '\n'); i >= 0 {
		line = line[i+1:]
	}
	isSign := func(c byte) bool { return bytes.IndexByte([]byte("=:>"), c) >= 0 }
	isQuote := func(c byte) bool { return bytes.IndexByte([]byte(" \t\"'`"), c) >= 0 }
	i := len(line)
	for i > 0 && isQuote(line[i-1]) {
		i--
	}
	sign := i
	for i > 0 && isSign(line[i-1]) {
		i--
	}
	if i == sign {
		return ""
	}
	for i > 0 && isQuote(line[i-1]) {
		i--
	}
	end := i
	for i > 0 && (wordByte[line[i-1]] || line[i-1] == '-' || line[i-1] == '.') {
		i--
	}
	if i == end || !isName(line[i:end]) {
		return ""
	}
	return string(line[i:])
}

// isName tells names from keys that stand before a colon.
func isName(b []byte) bool {
	numbers := 0
	for _, c := range b {
		if '0' <= c && c <= '9' {
			numbers++
		}
	}
	return len(b) <= nameMax && numbers < 4 && (len(b) < 16 || entropy(b) < 4)
}
