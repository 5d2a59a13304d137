package secret

import "bytes"

// wide reads text in UTF-16, as Windows writes settings and scripts. Secrets are
// ASCII: each unit becomes one byte, and one beyond ASCII becomes a byte that is
// part of no word.
type wide struct {
	low  int    // which byte of a unit holds ASCII: 0 little-endian, 1 big-endian
	odd  []byte // the first byte of a unit whose second has not come yet
	text []byte // what was made of the units, with what the next piece repeats
}

// wideText tells from the begin of a file whether it is text in UTF-16 and in which
// order the bytes of a unit are: by the mark that may stand first, or because every
// second byte is zero and the others are of text.
func wideText(head []byte) (low int, ok bool) {
	const least, most = 32, 512
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xfe")):
		return 0, true
	case bytes.HasPrefix(head, []byte("\xfe\xff")):
		return 1, true
	case len(head) < least:
		return 0, false
	}
	head = head[:min(len(head), most)]
	var text, zero [2]int
	for i, c := range head {
		switch {
		case c == 0:
			zero[i%2]++
		case c >= ' ' && c < 0x7f || c == '\n' || c == '\r' || c == '\t':
			text[i%2]++
		}
	}
	for low := range 2 {
		if n := len(head) / 2 * 3 / 4; text[low] >= n && zero[1-low] >= n {
			return low, true
		}
	}
	return 0, false
}

// narrow returns the text of a piece, of which the first seen bytes were in the last
// one, and how much of it was returned before: at least Ahead+Back, or all.
func (w *wide) narrow(b []byte, seen int) (text []byte, again int) {
	again = min(len(w.text), Ahead+Back)
	w.text = append(w.text[:0], w.text[len(w.text)-again:]...)
	b = b[seen:]
	if len(w.odd) > 0 && len(b) > 0 {
		w.unit(w.odd[0], b[0])
		w.odd, b = w.odd[:0], b[1:]
	}
	for ; len(b) >= 2; b = b[2:] {
		w.unit(b[0], b[1])
	}
	w.odd = append(w.odd, b...)
	return w.text, again
}

func (w *wide) unit(first, second byte) {
	if w.low == 1 {
		first, second = second, first
	}
	if second != 0 || first >= 0x80 {
		first = 0x80
	}
	w.text = append(w.text, first)
}
