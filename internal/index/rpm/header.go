package rpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Tags and types of an RPM header (rpm's "Header" file format: two counts,
// index entries of 16 bytes, then the data they point into, all big endian).
const (
	tagName       = 1000
	tagVersion    = 1001
	tagRelease    = 1002
	tagEpoch      = 1003
	tagVendor     = 1011
	tagLicense    = 1014
	tagArch       = 1022
	tagSourceRPM  = 1044
	tagModularity = 5096

	tagOldFilenames = 1027 // whole paths, before rpm 4
	tagDirIndexes   = 1116 // of each file, its place in the directories
	tagBasenames    = 1117
	tagDirNames     = 1118

	typeInt32       = 4
	typeString      = 6
	typeStringArray = 8
	typeI18NString  = 9

	entrySize  = 16
	entriesMax = 1 << 16 // rpm: hdrchkTags
	stringMax  = 1 << 10 // bytes of a name, version, vendor or licence
	filesMax   = 1 << 20 // of one package
)

// header is what is needed of one package.
type header struct {
	name, version, release, epoch, arch, source, vendor, modularity, license string
}

// parseHeader reads the blob of one row.
func parseHeader(blob []byte) (gatehouse.Package, error) {
	if len(blob) < 8 {
		return gatehouse.Package{}, errors.New("package header is too short")
	}
	entries, dataSize := int64(binary.BigEndian.Uint32(blob)), int64(binary.BigEndian.Uint32(blob[4:]))
	start := 8 + entries*entrySize
	if entries > entriesMax || dataSize > headerMax || start+dataSize > int64(len(blob)) {
		return gatehouse.Package{}, fmt.Errorf("package header of %d entries and %d bytes does not fit into %d bytes", entries, dataSize, len(blob))
	}
	data := blob[start : start+dataSize]
	var h header
	for i := range entries {
		if err := h.take(blob[8+i*entrySize:], data); err != nil {
			return gatehouse.Package{}, err
		}
	}
	if h.name == "" || h.version == "" {
		return gatehouse.Package{}, fmt.Errorf("package header has no name or no version: %.80q %.80q", h.name, h.version)
	}
	return h.pkg(), nil
}

// files calls each with the path of every file of a package whose header was
// read, until left bytes of paths were made. What makes no sense is passed over:
// that a file is the package's is only ever used to leave out what would be said
// twice.
func files(blob []byte, left *int64, each func(file string)) {
	take := func(dir, base []byte) {
		if n := len(dir) + len(base); n <= pathMax && int64(n) <= *left {
			*left -= int64(n)
			each(string(dir) + string(base))
		}
	}
	entries, dataSize := int64(binary.BigEndian.Uint32(blob)), int64(binary.BigEndian.Uint32(blob[4:]))
	start := 8 + entries*entrySize
	data := blob[start : start+dataSize]
	var bases, dirs, indexes []byte
	var fileCount, dirCount uint32
	for i := range entries {
		e := blob[8+i*entrySize:]
		tag, kind, offset, count := binary.BigEndian.Uint32(e), binary.BigEndian.Uint32(e[4:]), binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:])
		if int64(offset) > dataSize || count > filesMax {
			continue
		}
		switch at := data[offset:]; {
		case tag == tagOldFilenames && kind == typeStringArray:
			texts(at, count, func(_ uint32, file []byte) { take(nil, file) })
		case tag == tagBasenames && kind == typeStringArray:
			bases, fileCount = at, count
		case tag == tagDirNames && kind == typeStringArray:
			dirs, dirCount = at, count
		case tag == tagDirIndexes && kind == typeInt32:
			indexes = at
		}
	}
	if uint64(len(indexes)) < 4*uint64(fileCount) {
		return
	}
	folders := make([][]byte, 0, min(dirCount, uint32(len(dirs))))
	texts(dirs, dirCount, func(_ uint32, dir []byte) { folders = append(folders, dir) })
	texts(bases, fileCount, func(i uint32, base []byte) {
		if at := binary.BigEndian.Uint32(indexes[4*i:]); uint64(at) < uint64(len(folders)) {
			take(folders[at], base)
		}
	})
}

// texts calls each with the strings of a list, as many as there are.
func texts(data []byte, count uint32, each func(i uint32, s []byte)) {
	for i := range count {
		end := bytes.IndexByte(data, 0)
		if end < 0 {
			return
		}
		each(i, data[:end])
		data = data[end+1:]
	}
}

// take reads one index entry if its tag is needed.
func (h *header) take(entry, data []byte) error {
	var to *string
	switch tag := binary.BigEndian.Uint32(entry); tag {
	case tagName:
		to = &h.name
	case tagVersion:
		to = &h.version
	case tagRelease:
		to = &h.release
	case tagEpoch:
		to = &h.epoch
	case tagVendor:
		to = &h.vendor
	case tagLicense:
		to = &h.license
	case tagArch:
		to = &h.arch
	case tagSourceRPM:
		to = &h.source
	case tagModularity:
		to = &h.modularity
	default:
		return nil
	}
	kind, offset := binary.BigEndian.Uint32(entry[4:]), int64(binary.BigEndian.Uint32(entry[8:]))
	if offset > int64(len(data)) {
		return errors.New("package header points behind its data")
	}
	data = data[offset:]
	switch kind {
	case typeInt32:
		if to != &h.epoch || len(data) < 4 {
			return errors.New("package header has a number where text is due")
		}
		*to = strconv.FormatUint(uint64(binary.BigEndian.Uint32(data)), 10)
	case typeString, typeStringArray, typeI18NString: // of a list, the first
		end := bytes.IndexByte(data[:min(len(data), stringMax)], 0)
		if end < 0 && (to == &h.license || to == &h.vendor) {
			return nil // some licences fill pages, and nothing depends on them
		}
		if end < 0 || to == &h.epoch {
			return errors.New("package header has text that does not end")
		}
		if s := string(data[:end]); s != "(none)" {
			*to = s
		}
	default:
		return fmt.Errorf("package header has type %d where text is due", kind)
	}
	return nil
}

// pkg prints the version as "rpm -q" does: with the epoch where the package
// has the tag, also when it is 0, and without where it has none.
func (h header) pkg() gatehouse.Package {
	p := gatehouse.Package{
		Type: "rpm", Name: h.name, Version: h.evr(h.version, h.release),
		Arch: h.arch, Vendor: h.vendor, Modularity: h.modularity,
	}
	if name, version, release, ok := splitSourceRPM(h.source); ok {
		if name != h.name {
			p.Source = name
		}
		// A source package has no epoch of its own name; it shares that of
		// its binaries as far as anyone can tell.
		if sv := h.evr(version, release); sv != p.Version {
			p.SourceVersion = sv
		}
	}
	if h.license != "" {
		p.Licenses = []string{h.license}
	}
	return p
}

func (h header) evr(version, release string) string {
	if release != "" {
		version += "-" + release
	}
	if h.epoch != "" {
		version = h.epoch + ":" + version
	}
	return version
}

// splitSourceRPM takes "bash-5.1.8-6.el9.src.rpm" apart from its end.
func splitSourceRPM(s string) (name, version, release string, ok bool) {
	s = strings.TrimSuffix(s, ".rpm")
	s = strings.TrimSuffix(strings.TrimSuffix(s, ".src"), ".nosrc")
	i := strings.LastIndexByte(s, '-')
	if i <= 0 {
		return "", "", "", false
	}
	j := strings.LastIndexByte(s[:i], '-')
	if j <= 0 {
		return "", "", "", false
	}
	return s[:j], s[j+1 : i], s[i+1:], true
}
