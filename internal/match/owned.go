package match

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
)

// Owners answers which packages of languages a package of the operating system
// brought whose distribution reports their flaws. Its advisories speak of that
// package under the distribution's own version, into which repairs are ported
// back, so that the version of the language's package proves nothing.
//
// An Owners is for one image and one goroutine.
type Owners struct {
	places Places
	byName map[string]gatehouse.Package
	covers map[string]bool // by space, as far as it was asked
}

// OwnersOf looks for the owners among all packages of an image.
func OwnersOf(distro gatehouse.Distro, pkgs []gatehouse.Package) Owners {
	return ownersAt(PlacesOf(distro), pkgs)
}

func ownersAt(places Places, pkgs []gatehouse.Package) Owners {
	o := Owners{places: places, byName: map[string]gatehouse.Package{}, covers: map[string]bool{}}
	for _, p := range pkgs {
		if p.OS() {
			o.byName[p.Name] = p
		}
	}
	return o
}

// Speaks reports whether some advisories of the distribution may speak of p:
// not where no feed knows the distribution, and not of a package of another
// vendor.
func (o Owners) Speaks(p gatehouse.Package) bool { return len(o.places.Keys(p)) > 0 }

// Reported reports whether the flaws of p are reported with its owner's, in
// which case p itself is not to be matched: its owner is installed, and adv
// covers the owner's distribution. Errors are those of adv.
func (o Owners) Reported(ctx context.Context, p gatehouse.Package, adv Advisories) (bool, error) {
	owner, ok := o.byName[p.Owner]
	if p.Owner == "" || !ok {
		return false, nil
	}
	for _, k := range o.places.Keys(owner) {
		has, asked := o.covers[k.Space]
		if !asked {
			var err error
			if has, err = adv.Covers(ctx, k.Space); err != nil {
				return false, err
			}
			o.covers[k.Space] = has
		}
		if has {
			return true, nil
		}
	}
	return false, nil
}

// MayBeReported is [Owners.Reported] for advisories that cover everything that
// any feed speaks of.
func (o Owners) MayBeReported(p gatehouse.Package) bool {
	owner, ok := o.byName[p.Owner]
	return ok && p.Owner != "" && o.Speaks(owner)
}
