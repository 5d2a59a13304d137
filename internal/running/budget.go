package running

import (
	"sync"
	"unique"
)

// TemplatesMax bounds the bytes of the templates of all Pods that are kept.
const TemplatesMax = 256 << 20

// unkept is the template of Pods for whose own there was no room.
var unkept = Template{unique.Make("")}

// Unkept reports whether there was no room for the template: nobody can tell what runs.
func (t Template) Unkept() bool { return t == unkept }

// Budget keeps the templates of Pods below a number of bytes: whoever may make Pods may
// make them large, and no two alike. It is safe for concurrent use.
type Budget struct {
	max int

	mu    sync.Mutex
	kept  map[Template]bool // since the last Settle there may be some that nobody has
	bytes int
}

// NewBudget makes a Budget of max bytes.
func NewBudget(max int) *Budget { return &Budget{max: max, kept: map[Template]bool{}} }

// Take returns p, without its template where there is no room for it.
func (b *Budget) Take(p Pod) Pod {
	if p.Template.Zero() {
		return p
	}
	size := len(p.Template.text.Value())
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.kept[p.Template]:
	case b.bytes+size > b.max:
		p.Template = unkept
	default:
		b.kept[p.Template] = true
		b.bytes += size
	}
	return p
}

// Settle says which templates there are. It reports how many Pods have none for want of
// room, and whether there would be room now: half of it is free.
func (b *Budget) Settle(pods []Pod) (without int, room bool) {
	kept, bytes := map[Template]bool{}, 0
	for _, p := range pods {
		switch {
		case p.Template.Unkept():
			without++
		case !p.Template.Zero() && !kept[p.Template]:
			kept[p.Template] = true
			bytes += len(p.Template.text.Value())
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept, b.bytes = kept, bytes
	return without, bytes <= b.max/2
}
