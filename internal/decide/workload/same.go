package workload

import "bytes"

// AppendGeneral appends the request of an AdmissionReview (JSON) to dst, without its uid
// and without what of its objects does not count: their status, their managed fields,
// and what [General] leaves out. Requests that become equal have objects that are equal
// then; not all such requests do, for what is spelled in another way stays. It takes a
// tenth of the time of reading them. ok is false where review is no JSON; not everything
// that is none is found.
func AppendGeneral(dst, review []byte) (_ []byte, ok bool) {
	g := general{text: review, out: dst}
	g.at = g.space(0)
	at, ok := g.find(g.at, "object")
	g.value(requestPart, ok && g.generated(at))
	return g.out, !g.broken && g.space(g.at) == len(review)
}

// part says what is left out of a JSON value.
type part struct {
	fields map[string]*part // of an object: those of which something is
	each   *part            // of the values of a list
	left   leaving
}

type leaving int

const (
	leaveParts  leaving = iota // what fields and each say
	leaveAlways                // all of it
	leaveMade                  // all of it where the object's name was made
	leaveObject                // a Kubernetes object: parts, by how its own name was made
	leaveVolume                // a name of a volume: what is random in it
)

var (
	requestPart = &part{fields: map[string]*part{"uid": {left: leaveAlways}, "name": {left: leaveMade}, "object": objectPart, "oldObject": objectPart}}
	objectPart  = &part{left: leaveObject, fields: map[string]*part{"status": {left: leaveAlways}, "metadata": metadataPart(), "spec": specPart()}}
)

func metadataPart() *part {
	labels := map[string]*part{}
	for _, name := range ownLabels {
		labels[name] = &part{left: leaveAlways}
	}
	fields := map[string]*part{"managedFields": {left: leaveAlways}, "name": {left: leaveMade}, "labels": {fields: labels}}
	for _, name := range ownMetadata {
		fields[name] = &part{left: leaveAlways}
	}
	return &part{fields: fields}
}

func specPart() *part {
	named := &part{each: &part{fields: map[string]*part{"name": {left: leaveVolume}}}}
	containers := &part{each: &part{fields: map[string]*part{"volumeMounts": named}}}
	fields := map[string]*part{"hostname": {left: leaveMade}, "volumes": named}
	for _, name := range containerLists {
		fields[name] = containers
	}
	return &part{fields: fields}
}

// general copies JSON. What is none is broken or becomes something; it never leaves the
// text.
type general struct {
	text, out []byte
	at        int // what lies before it has been read
	broken    bool
}

// value copies the value at g.at but for what p says; nil: all of it.
func (g *general) value(p *part, generated bool) {
	start := g.at
	c := g.byte(start)
	switch {
	case p != nil && p.fields != nil && c == '{':
		if p.left == leaveObject {
			generated = g.generated(start)
		}
		g.object(p, generated)
	case p != nil && p.each != nil && c == '[':
		g.out = append(g.out, '[')
		first := true
		g.inside(']', func() {
			g.comma(&first)
			g.value(p.each, generated)
		})
		g.out = append(g.out, ']')
	case p != nil && p.left == leaveVolume && c == '"' && bytes.HasPrefix(g.text[start+1:], []byte(tokenVolume)):
		g.at = g.end(start)
		g.out = append(append(append(g.out, '"'), tokenVolume...), '"')
	default:
		g.at = g.end(start)
		g.out = append(g.out, g.text[start:g.at]...)
	}
}

func (g *general) object(p *part, generated bool) {
	g.out = append(g.out, '{')
	first := true
	g.inside('}', func() {
		start, end := g.name()
		inner := p.fields[string(g.text[start:end])]
		if inner != nil && (inner.left == leaveAlways || inner.left == leaveMade && generated) {
			g.at = g.end(g.at)
			return
		}
		g.comma(&first)
		g.out = append(append(append(append(g.out, '"'), g.text[start:end]...), '"'), ':')
		g.value(inner, generated)
	})
	g.out = append(g.out, '}')
}

func (g *general) comma(first *bool) {
	if !*first {
		g.out = append(g.out, ',')
	}
	*first = false
}

// inside calls f at each value, or field, of the list or object at g.at.
func (g *general) inside(closing byte, f func()) {
	g.at = g.space(g.at + 1)
	if g.byte(g.at) == closing {
		g.at++
		return
	}
	for {
		f()
		g.at = g.space(g.at)
		c := g.byte(g.at)
		g.at = g.space(min(g.at+1, len(g.text)))
		if c == closing {
			return
		}
		if g.broken = g.broken || c != ','; g.broken {
			return
		}
	}
}

// name reads the name of a field as it is written, and what is around it. The value
// follows at g.at.
func (g *general) name() (start, end int) {
	start, end = g.at+1, g.end(g.at)-1
	if g.byte(g.at) != '"' || end < start {
		g.broken = true
		return g.at, g.at
	}
	colon := g.space(end + 1)
	if g.byte(colon) != ':' {
		g.broken = true
		return start, end
	}
	g.at = g.space(colon + 1)
	return start, end
}

// find finds the value of a field of the object at a place, if there is one.
func (g *general) find(at int, name string) (value int, ok bool) {
	if g.byte(at) != '{' {
		return 0, false
	}
	in := &general{text: g.text, at: at}
	in.inside('}', func() {
		start, end := in.name()
		if !ok && string(in.text[start:end]) == name {
			value, ok = in.at, true
		}
		in.at = in.end(in.at)
	})
	return value, ok
}

// generated reports whether the name of the object at a place was made, as [General]
// does.
func (g *general) generated(object int) bool {
	meta, ok := g.find(object, "metadata")
	if !ok {
		return false
	}
	if at, ok := g.find(meta, "generateName"); ok && g.byte(at) == '"' && g.byte(at+1) != '"' {
		return true
	}
	at, ok := g.find(meta, "ownerReferences")
	return ok && g.byte(at) == '[' && g.byte(g.space(at+1)) != ']'
}

// byte is the byte at a place, 0 behind the end.
func (g *general) byte(at int) byte {
	if at < len(g.text) {
		return g.text[at]
	}
	return 0
}

func (g *general) space(at int) int {
	for at < len(g.text) && (g.text[at] == ' ' || g.text[at] == '\t' || g.text[at] == '\n' || g.text[at] == '\r') {
		at++
	}
	return at
}

// end is where the value at a place ends.
func (g *general) end(at int) int {
	for depth := 0; at < len(g.text); {
		switch c := g.text[at]; c {
		case '"':
			for at++; at < len(g.text) && g.text[at] != '"'; at++ {
				if g.text[at] == '\\' {
					at++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if at++; depth <= 0 && endsValue(g.byte(at)) {
			return min(at, len(g.text))
		}
	}
	g.broken = true
	return len(g.text)
}

// endsValue reports whether a byte is none of a value that came before it.
func endsValue(c byte) bool {
	switch c {
	case ',', '}', ']', ':', ' ', '\t', '\n', '\r', 0:
		return true
	}
	return false
}
