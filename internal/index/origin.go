package index

import (
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Origins tells where each layer of an image comes from: which step of the
// history made it, and whether the base image has it already, as far as the
// history tells: see baseByHistory. Who knows other images knows better.
//
// The steps are the words of the image's author. They are left out where the
// history has another number of layers than the image. A directory that was
// indexed by [Rootfs] has no layers.
func Origins(layers []gatehouse.LayerInventory, cfg gatehouse.ImageConfig) []gatehouse.LayerOrigin {
	if len(layers) == 1 && layers[0].DiffID == "" {
		return nil
	}
	out := make([]gatehouse.LayerOrigin, len(layers))
	var steps []int // places in the history that made a layer
	for i, h := range cfg.History {
		if !h.EmptyLayer {
			steps = append(steps, i)
		}
	}
	boundary := 0
	if len(steps) == len(layers) {
		boundary = baseByHistory(cfg, steps)
	}
	for i, l := range layers {
		out[i] = gatehouse.LayerOrigin{DiffID: l.DiffID, Base: i < boundary}
		if len(steps) == len(layers) {
			out[i].CreatedBy = step(cfg.History[steps[i]].CreatedBy)
		}
	}
	return out
}

// baseByHistory guesses how many layers the base image has: a Dockerfile says
// CMD or ENTRYPOINT at its end, so the last of them that a layer follows is the
// end of the base image. Labels, ports and variables that stand at the end of
// the history tell nothing.
func baseByHistory(cfg gatehouse.ImageConfig, steps []int) int {
	if len(steps) == 0 {
		return 0
	}
	last := steps[len(steps)-1]
	for i := last - 1; i >= 0; i-- {
		h := cfg.History[i]
		if !h.EmptyLayer || !endsImage(h.CreatedBy) {
			continue
		}
		n, _ := slices.BinarySearch(steps, i)
		return n
	}
	return 0
}

// endsImage knows the forms of Docker's builder ("/bin/sh -c #(nop)  CMD …"),
// BuildKit and Buildah ("CMD …").
func endsImage(createdBy string) bool {
	_, nop, ok := strings.Cut(createdBy, "#(nop)")
	if !ok {
		nop = createdBy
	}
	nop = strings.TrimSpace(nop)
	return strings.HasPrefix(nop, "CMD ") || strings.HasPrefix(nop, "ENTRYPOINT ")
}

// stepMax is how much of a step is kept, in bytes: some hold whole scripts.
const stepMax = 2000

// step makes a line of the history one that a Dockerfile could have.
func step(createdBy string) string {
	s := createdBy
	if len(s) > stepMax {
		s = s[:stepMax] + "…"
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	if _, nop, ok := strings.Cut(s, "#(nop)"); ok {
		return strings.TrimSpace(nop)
	}
	s = strings.TrimSpace(strings.TrimSuffix(s, "# buildkit"))
	if rest, ok := strings.CutPrefix(s, "/bin/sh -c "); ok {
		return "RUN " + strings.TrimSpace(rest)
	}
	if rest, ok := strings.CutPrefix(s, "RUN /bin/sh -c "); ok {
		return "RUN " + strings.TrimSpace(rest)
	}
	return s
}
