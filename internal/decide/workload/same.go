package workload

import "bytes"

// AppendGeneral appends the request of an AdmissionReview (JSON) to dst, without its uid
// and without what of its objects does not count: their status, their managed fields,
// and what [General] leaves out. Requests that become equal have objects that are equal
// then; not all such requests do, for what is spelled in another way stays. It takes a
// tenth of the time of reading them. ok is false where review is no JSON; not everything
// that is none is found.
func AppendGeneral(dst, review []byte) (_ []byte, ok bool) {
	g := general{decoder: decoder{text: review}, out: dst}
	at, ok := g.find(0, "object")
	g.value(requestPart, ok && g.generated(at))
	g.space()
	return g.out, !g.broken && g.at == len(review)
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
	decoder
	out    []byte
	broken bool
}

// value copies the value that is next but for what p says; nil: all of it.
func (g *general) value(p *part, generated bool) {
	c := g.next()
	start := g.at
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
		g.skip()
		g.out = append(append(append(g.out, '"'), tokenVolume...), '"')
	default:
		g.skip()
		g.out = append(g.out, g.text[start:g.at]...)
	}
}

func (g *general) object(p *part, generated bool) {
	g.out = append(g.out, '{')
	first := true
	g.inside('}', func() {
		name := g.name()
		inner := p.fields[string(name)]
		if inner != nil && (inner.left == leaveAlways || inner.left == leaveMade && generated) {
			g.skip()
			return
		}
		g.comma(&first)
		g.out = append(append(append(append(g.out, '"'), name...), '"'), ':')
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

// inside calls f before each value, or field, of the list or object that is next.
func (g *general) inside(closing byte, f func()) {
	g.at++
	if g.next() != closing {
		for f(); g.next() == ','; f() {
			g.at++
		}
	}
	if g.next() != closing {
		g.broken = true
		return
	}
	g.at++
}

// name reads the name of a field as it is written, and the colon. Its value is next.
func (g *general) name() []byte {
	if g.next() != '"' {
		g.broken = true
		return nil
	}
	start := g.at
	g.skip()
	name := g.text[start:g.at]
	if g.next() != ':' || len(name) < 2 {
		g.broken = true
		return nil
	}
	g.at++
	return name[1 : len(name)-1]
}

// find finds the value of a field of the object at a place, if there is one.
func (g *general) find(at int, name string) (value int, ok bool) {
	in := &general{decoder: decoder{text: g.text, at: at}}
	if in.next() != '{' {
		return 0, false
	}
	in.inside('}', func() {
		here := string(in.name()) == name && !ok
		in.next()
		if here {
			value, ok = in.at, true
		}
		in.skip()
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
	if at, ok := g.find(meta, "generateName"); ok && bytes.HasPrefix(g.text[at:], []byte(`"`)) && !bytes.HasPrefix(g.text[at:], []byte(`""`)) {
		return true
	}
	at, ok := g.find(meta, "ownerReferences")
	owners := decoder{text: g.text, at: at + 1}
	return ok && bytes.HasPrefix(g.text[at:], []byte("[")) && owners.next() != ']'
}

// skip goes behind the value that is next.
func (g *general) skip() {
	g.space()
	for depth := 0; g.at < len(g.text); {
		switch c := g.text[g.at]; c {
		case '"':
			for g.at++; g.at < len(g.text) && g.text[g.at] != '"'; g.at++ {
				if g.text[g.at] == '\\' {
					g.at++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if g.at++; depth <= 0 && (g.at >= len(g.text) || endsValue(g.text[g.at])) {
			g.at = min(g.at, len(g.text))
			return
		}
	}
	g.at, g.broken = len(g.text), true
}

// endsValue reports whether a byte is none of a value that came before it.
func endsValue(c byte) bool {
	switch c {
	case ',', '}', ']', ':', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}
