package index

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/apk"
	"github.com/gatehouse-dev/gatehouse/internal/index/contentset"
	"github.com/gatehouse-dev/gatehouse/internal/index/dpkg"
	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
	"github.com/gatehouse-dev/gatehouse/internal/index/osrelease"
	"github.com/gatehouse-dev/gatehouse/internal/index/rpm"
)

// Extractors returns the extractors of what is installed, for images and root
// file systems, in the order in which they are asked. executable, which goes by
// the mode, is the last.
func Extractors() []Extractor {
	return []Extractor{
		plain{name: "os-release", version: 2, max: osrelease.SizeMax, wants: wantsRelease, extract: release},
		plain{name: "content-sets", version: 1, max: contentset.SizeMax, wants: wantsContentSets, extract: contentSets},
		plain{name: "dpkg", version: 3, max: 64 * mib, wants: wantsDpkg, extract: dpkgFile},
		plain{name: copyrightName, version: 1, max: 16 * mib, wants: wantsCopyright, extract: copyright},
		plain{name: "apk", version: 3, max: 64 * mib, wants: wantsApk, extract: apkInstalled},
		plain{name: "rpm", version: 3, max: 512 * mib, wants: wantsRPM, extract: rpmDatabase},
		plain{name: "npm", version: 2, max: lang.NPMSizeMax, wants: wantsNPM, extract: npm},
		plain{name: "python", version: 2, max: 64 * mib, wants: wantsPython, extract: python},
		plain{name: "java", version: 3, max: 512 * mib, wants: wantsJava, extract: java},
		plain{name: "gem", version: 2, max: lang.GemSizeMax, wants: wantsGem, extract: gem},
		plain{name: "dotnet", version: 1, max: lang.DotNetSizeMax, wants: wantsDotNet, extract: dotNet},
		plain{name: "composer", version: 1, max: lang.ComposerSizeMax, wants: wantsComposer, extract: composer},
		plain{name: "conda", version: 1, max: lang.CondaSizeMax, wants: wantsConda, extract: conda},
		plain{name: "cran", version: 1, max: lang.CRANSizeMax, wants: wantsCRAN, extract: cran},
		plain{name: "bitnami", version: 1, max: lang.BitnamiSizeMax, wants: wantsBitnami, extract: bitnami},
		sniffed{
			plain:   plain{name: "executable", version: 4, max: gib, wants: func(string, fs.FileMode) bool { return true }, extract: executable},
			sniff:   sniffExecutable,
			expects: expectsExecutable,
		},
	}
}

// SourceExtractors returns [Extractors] and, before them, that of lock files:
// for directories with source code. In an image a lock file says what somebody
// meant to install, in this image or in another.
func SourceExtractors() []Extractor {
	return append([]Extractor{
		plain{name: "lock", version: 1, max: lang.LockSizeMax, wants: wantsLock, extract: lock},
	}, Extractors()...)
}

// languageFiles are the names that extractors of languages go by, without those
// that go by more than the name.
var languageFiles = []func(name string, mode fs.FileMode) bool{
	wantsNPM, wantsPython, wantsJava, wantsGem, wantsDotNet, wantsComposer, wantsConda, wantsCRAN,
}

// plain is an [Extractor] of a rule and a function.
type plain struct {
	name    string
	version int
	max     int64
	wants   func(name string, mode fs.FileMode) bool
	extract func(ctx context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error)
}

func (e plain) Name() string   { return e.name }
func (e plain) Version() int   { return e.version }
func (e plain) FileMax() int64 { return e.max }

func (e plain) Wants(name string, _ int64, mode fs.FileMode) bool { return e.wants(name, mode) }

func (e plain) Extract(ctx context.Context, f File) (gatehouse.PackageSet, error) {
	packages, distro, err := e.extract(ctx, f)
	if errors.Is(err, lang.ErrOther) {
		err = ErrNotMine
	}
	return gatehouse.PackageSet{Distro: distro, Packages: packages}, err
}

// sniffed is plain with a look at the first bytes.
type sniffed struct {
	plain
	sniff   func(name string, size int64, head []byte) bool
	expects func(name string, mode fs.FileMode) bool
}

func (e sniffed) Sniff(name string, size int64, head []byte) bool { return e.sniff(name, size, head) }
func (e sniffed) Expects(name string, mode fs.FileMode) bool      { return e.expects(name, mode) }

// distroPaths are the files that name the distribution, the one that counts
// most first.
var distroPaths = []string{
	"etc/os-release", "usr/lib/os-release", osReleaseDir,
	"etc/alpine-release", "etc/almalinux-release", "etc/rocky-release", "etc/oracle-release",
	"etc/centos-release", "etc/fedora-release", "etc/system-release", "etc/redhat-release", "etc/debian_version",
}

// osReleaseDir is where Fedora keeps the file that usr/lib/os-release links to.
const osReleaseDir = "usr/lib/os.release.d/"

// distroRank is the place of a file in distroPaths, len(distroPaths) for any
// other.
func distroRank(name string) int {
	for i, p := range distroPaths {
		if name == p || p == osReleaseDir && strings.HasPrefix(name, p) {
			return i
		}
	}
	return len(distroPaths)
}

// The wants functions run for every entry of every layer: they look at one end
// of the name before they look closer.

func wantsRelease(name string, _ fs.FileMode) bool {
	if !strings.HasPrefix(name, "etc/") && !strings.HasPrefix(name, "usr/lib/os") {
		return false
	}
	return distroRank(name) < len(distroPaths)
}

// wantsContentSets takes the lists of repositories that Red Hat's build systems
// leave in images, the older one's and the newer one's.
func wantsContentSets(name string, _ fs.FileMode) bool {
	switch dir, base := path.Split(name); dir {
	case "root/buildinfo/content_manifests/":
		return strings.HasSuffix(base, ".json")
	case "usr/share/buildinfo/":
		return base == "content-sets.json"
	}
	return false
}

func wantsDpkg(name string, _ fs.FileMode) bool {
	rest, ok := strings.CutPrefix(name, "var/lib/dpkg/")
	if !ok {
		return false
	}
	return rest == "status" || strings.HasPrefix(rest, "status.d/") || strings.HasPrefix(rest, "info/") && strings.HasSuffix(rest, ".list") ||
		isDpkgUpdate(rest)
}

// isDpkgUpdate knows the journal, files named by a number: dpkg reads it over the
// status file, and folds it in when it next writes.
func isDpkgUpdate(rest string) bool {
	number, ok := strings.CutPrefix(rest, "updates/")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

func wantsCopyright(name string, _ fs.FileMode) bool {
	return strings.HasSuffix(name, "/copyright") && dpkg.CopyrightPackage(name) != ""
}

func wantsApk(name string, _ fs.FileMode) bool {
	return name == "lib/apk/db/installed" || name == "usr/lib/apk/db/installed"
}

func wantsRPM(name string, _ fs.FileMode) bool {
	dir, base := path.Split(name)
	switch dir {
	case "var/lib/rpm/", "usr/lib/sysimage/rpm/", "usr/share/rpm/":
		return base == "Packages" || base == "Packages.db" || base == "rpmdb.sqlite" || base == rpmLog || base == rpmJournal
	case "var/lib/rpmmanifest/":
		return base == rpmManifest
	}
	return false
}

// copyrightName is the extractor whose files tell of licences only.
const copyrightName = "copyright"

const (
	rpmLog      = "rpmdb.sqlite-wal"
	rpmJournal  = "rpmdb.sqlite-journal"
	rpmManifest = "container-manifest-2"
)

// wantsNPM takes package.json of the packages themselves,
// node_modules/NAME or node_modules/@SCOPE/NAME, wherever these are. Others
// are markers, examples and test data inside packages, or the application,
// which is nobody's advisory.
func wantsNPM(name string, _ fs.FileMode) bool {
	dir, ok := strings.CutSuffix(name, "/package.json")
	if !ok {
		return false
	}
	parent := path.Dir(dir)
	if base := path.Base(parent); strings.HasPrefix(base, "@") {
		parent = path.Dir(parent)
	}
	return path.Base(parent) == "node_modules"
}

// wantsPython takes installed distributions; a wheel that lies about
// (ensurepip's) is not installed.
func wantsPython(name string, _ fs.FileMode) bool {
	switch {
	case strings.HasSuffix(name, "METADATA"):
		return strings.HasSuffix(name, ".dist-info/METADATA")
	case strings.HasSuffix(name, "PKG-INFO"):
		return strings.HasSuffix(name, ".egg-info/PKG-INFO") || strings.HasSuffix(name, "EGG-INFO/PKG-INFO")
	}
	return strings.HasSuffix(name, ".egg-info") || strings.HasSuffix(name, ".egg")
}

func wantsJava(name string, _ fs.FileMode) bool {
	i := strings.LastIndexByte(name, '.')
	if i < 0 || len(name)-i > len(".lpkg") || len(name)-i < len(".jar") {
		return false
	}
	switch strings.ToLower(name[i:]) {
	case ".jar", ".war", ".ear", ".jmod", ".par", ".sar", ".jpi", ".hpi", ".lpkg", ".nar":
		return true
	}
	return false
}

// wantsGem takes the specifications of installed gems, not those that gems
// bring of themselves.
func wantsGem(name string, _ fs.FileMode) bool {
	return strings.HasSuffix(name, ".gemspec") && strings.Contains("/"+name, "/specifications/")
}

func wantsDotNet(name string, _ fs.FileMode) bool { return strings.HasSuffix(name, ".deps.json") }

func wantsComposer(name string, _ fs.FileMode) bool {
	return strings.HasSuffix("/"+name, "/composer/installed.json")
}

func wantsConda(name string, _ fs.FileMode) bool {
	return strings.HasSuffix(name, ".json") && path.Base(path.Dir(name)) == "conda-meta"
}

// wantsCRAN takes packages in the libraries of R: library, site-library,
// host-site-library.
func wantsCRAN(name string, _ fs.FileMode) bool {
	dir, ok := strings.CutSuffix(name, "/DESCRIPTION")
	return ok && strings.HasSuffix(path.Base(path.Dir(dir)), "library")
}

func wantsBitnami(name string, _ fs.FileMode) bool {
	rest, ok := strings.CutPrefix(name, "opt/bitnami/")
	return ok && strings.HasSuffix(rest, ".spdx") && strings.HasPrefix(path.Base(rest), ".spdx-")
}

func wantsLock(name string, _ fs.FileMode) bool { return lang.IsLock(name) }

// expectsExecutable goes by the mode. A program needs none to be run: it can be
// copied first, or handed to the loader.
func expectsExecutable(name string, mode fs.FileMode) bool {
	return mode&0o111 != 0 || strings.HasSuffix(name, ".exe") || strings.HasSuffix(name, ".dll")
}

// sniffExecutable takes programs, and archives that may be of Java although their
// names do not say so, also behind a script that starts them. Larger archives are
// data and models; smaller scripts are just that.
func sniffExecutable(_ string, size int64, head []byte) bool {
	const archiveMax, scriptMax = 512 * mib, 64 << 10
	return lang.IsExecutable(head) || size <= archiveMax && (lang.IsZip(head) || size > scriptMax && isScript(head))
}

func isScript(head []byte) bool { return bytes.HasPrefix(head, []byte("#!")) }

func release(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	if strings.HasPrefix(path.Base(f.Path), "os-release") { // not centos-release
		d, err := osrelease.Parse(f.Body)
		return nil, d, err
	}
	d, err := osrelease.ParseOld(f.Path, f.Body)
	return nil, d, err
}

// contentSets reads one list. One that cannot be read is as good as none, which
// takes nothing away from what is looked up.
func contentSets(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	names := contentset.Parse(f.Body)
	if len(names) == 0 {
		return nil, nil, nil // an empty set: it hides the one below it
	}
	return nil, &gatehouse.Distro{ContentSets: names}, nil
}

func dpkgFile(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	dir, base := path.Split(f.Path)
	split := dir == "var/lib/dpkg/status.d/"
	if pkg := dpkg.ListPackage(base, split); pkg != "" {
		if err := dpkg.Files(f.Body, split, func(file string) { f.owns(file, pkg) }); err != nil {
			return nil, nil, err
		}
		return nil, nil, ErrNoPackages
	}
	p, err := dpkg.Parse(f.Body, split, f.Limits.SetPackagesMax)
	return p, nil, err
}

func copyright(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	licenses, err := dpkg.Copyright(f.Body)
	if err != nil {
		return nil, nil, err
	}
	if f.Licensed != nil && len(licenses) > 0 {
		f.Licensed(dpkg.CopyrightPackage(f.Path), licenses)
	}
	return nil, nil, ErrNoPackages
}

func apkInstalled(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := apk.Parse(f.Body, f.Limits.SetPackagesMax, f.Owns)
	return p, nil, err
}

func rpmDatabase(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	switch path.Base(f.Path) {
	case rpmLog:
		// rpm writes the log into the database when it ends and leaves it
		// empty; one with content was copied from under a running rpm.
		if f.Size > 0 {
			return nil, nil, errors.New("write-ahead log holds changes to the database, which are not read")
		}
		return nil, nil, nil
	case rpmJournal:
		// A journal that begins with zeros is over (SQLite file format, "The
		// Rollback Journal").
		head := make([]byte, 8)
		if _, err := io.ReadFull(f.Body, head); err == nil && !bytes.Equal(head, make([]byte, 8)) {
			return nil, nil, errors.New("rollback journal holds pages that go back into the database, which are not read")
		}
		return nil, nil, nil
	case rpmManifest:
		p, err := rpm.ParseManifest(f.Body, f.Limits.SetPackagesMax)
		return p, nil, err
	}
	if f.Size == 0 {
		return nil, nil, nil
	}
	p, err := rpm.Parse(f.Body, f.Size, f.Limits.SetPackagesMax, f.Owns)
	return p, nil, err
}

func archiveLimits(f File) lang.ArchiveLimits {
	l := f.Limits
	return lang.ArchiveLimits{
		Depth: l.ArchiveDepth, BytesMax: l.ArchiveBytesMax, EntriesMax: l.ArchiveEntriesMax, Packages: l.SetPackagesMax,
		MemoryMax: l.MemoryMax, SizeMax: l.FileMax, TempDir: l.TempDir, Spend: f.Inflates,
	}
}

func npm(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.NPM(f.Body)
	return p, nil, err
}

func python(ctx context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.Python(ctx, f.Path, f.Body, archiveLimits(f))
	return p, nil, err
}

func java(ctx context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.Java(ctx, f.Path, f.Body, archiveLimits(f))
	return p, nil, err
}

func gem(ctx context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.Gem(ctx, f.Path, f.Body)
	return p, nil, err
}

func dotNet(ctx context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.DotNet(ctx, f.Path, f.Body)
	return p, nil, err
}

func composer(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.Composer(f.Body, f.Limits.SetPackagesMax)
	return p, nil, err
}

func conda(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.Conda(f.Body)
	return p, nil, err
}

func cran(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.CRAN(f.Body)
	return p, nil, err
}

func bitnami(_ context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.Bitnami(f.Body)
	return p, nil, err
}

func lock(ctx context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	p, err := lang.Lock(ctx, f.Path, f.Body, f.Limits.SetPackagesMax)
	return p, nil, err
}

func executable(ctx context.Context, f File) ([]gatehouse.Package, *gatehouse.Distro, error) {
	head := make([]byte, headSize)
	if n, _ := f.Body.ReadAt(head, 0); lang.IsZip(head[:n]) || isScript(head[:n]) {
		p, err := lang.JavaOfAnyName(ctx, f.Path, f.Body, archiveLimits(f))
		return p, nil, err
	}
	p, err := lang.Executable(f.Body)
	return p, nil, err
}
