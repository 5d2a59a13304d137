package index

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"path"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/misconfig"
	"github.com/gatehouse-dev/gatehouse/internal/index/secret"
)

// Names of inspectors, for [Analysis.Without].
const (
	InspectSecrets   = "secret"
	InspectMisconfig = "misconfig"
	InspectFiles     = "files"
)

// Inspectors returns every inspector there is.
func Inspectors() []Inspector {
	return []Inspector{
		inspector{InspectSecrets, secret.Version, func(r *Report) Inspection { return &secrets{report: r, scanner: secret.NewScanner()} }},
		inspector{InspectMisconfig, misconfig.Version, func(r *Report) Inspection {
			return &facts{report: r, caches: map[string]bool{}, counts: map[string]int{}}
		}},
		inspector{InspectFiles, 1, func(r *Report) Inspection { return &digests{report: r, sum: sha256.New()} }},
	}
}

// inspector is an [Inspector] of a function.
type inspector struct {
	name    string
	version int
	inspect func(*Report) Inspection
}

func (i inspector) Name() string                 { return i.name }
func (i inspector) Version() int                 { return i.version }
func (i inspector) Inspect(r *Report) Inspection { return i.inspect(r) }

// secrets looks for secrets.
type secrets struct {
	report  *Report
	scanner *secret.Scanner
}

func (s *secrets) Entry(e Entry) bool {
	return e.Mode.IsRegular() && e.Size > 0 && s.scanner.Begin(e.Path)
}

func (s *secrets) Piece(p Piece) bool {
	more := s.scanner.Piece(p.Bytes, p.Seen, p.Last, s.report.Finding)
	if s.scanner.GaveUp() {
		s.report.Incomplete("so much of it looks like secrets and is none that the rest was not looked at")
	}
	if s.scanner.Full() {
		s.report.Incomplete("it holds more secrets than are told of one file")
	}
	return more
}

// facts looks at modes, names and a few small files.
type facts struct {
	report  *Report
	caches  map[string]bool // told for this layer
	counts  map[string]int  // findings by check
	content []byte
	path    string
}

// sameMax is how many findings of one check are told of a layer: who gives all
// files to everybody need not read all their names.
const sameMax = 100

func (f *facts) Entry(e Entry) bool {
	file := misconfig.File{Path: e.Path, Mode: e.Mode, Size: e.Size, Link: e.Link != "", Capabilities: e.Capabilities}
	for _, finding := range misconfig.Entry(file) {
		f.tell(finding)
	}
	if name := misconfig.Cache(file); name != "" && !f.caches[name] {
		f.caches[name] = true
		f.tell(misconfig.CacheFinding(name))
	}
	f.path, f.content = e.Path, f.content[:0]
	return e.Mode.IsRegular() && e.Size > 0 && misconfig.WantsContent(e.Path)
}

func (f *facts) tell(finding gatehouse.Finding) {
	f.counts[finding.ID]++
	switch n := f.counts[finding.ID]; {
	case n == sameMax:
		finding.Title += " (further ones in this layer are not listed)"
		fallthrough
	case n < sameMax:
		f.report.Finding(finding)
	}
}

func (f *facts) Piece(p Piece) bool {
	if len(f.content)+len(p.Bytes)-p.Seen > misconfig.ContentMax {
		f.report.Incomplete("it is larger than %d bytes", misconfig.ContentMax)
		return false
	}
	f.content = append(f.content, p.Bytes[p.Seen:]...)
	if p.Last {
		for _, finding := range misconfig.Content(f.path, f.content) {
			f.tell(finding)
		}
	}
	return true
}

// digests hashes what can be executed and what can hold such: programs and
// libraries, scripts, archives.
type digests struct {
	report *Report
	sum    hash.Hash
	size   int64
	named  bool // its name alone says so
}

func (d *digests) Entry(e Entry) bool {
	if !e.Mode.IsRegular() || e.Size <= 0 || e.Link != "" {
		return false
	}
	d.size, d.named = e.Size, isScriptName(e.Path)
	return true
}

func (d *digests) Piece(p Piece) bool {
	if p.Seen == 0 {
		if !d.named && !isExecutableHead(p.Bytes) {
			return false
		}
		d.sum.Reset()
	}
	d.sum.Write(p.Bytes[p.Seen:])
	if p.Last {
		d.report.File(gatehouse.NewDigest(gatehouse.SHA256, d.sum.Sum(nil)), d.size)
	}
	return true
}

// isExecutableHead knows programs, libraries, scripts and archives by their
// first bytes.
func isExecutableHead(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	switch b[0] {
	case 0x7f:
		return string(b[1:4]) == "ELF"
	case '#':
		return b[1] == '!'
	case 'M':
		return b[1] == 'Z' && len(b) > 64
	case 'P':
		return b[1] == 'K' && (b[2] == 3 && b[3] == 4 || b[2] == 5 && b[3] == 6)
	case 0xfe, 0xcf, 0xce, 0xca:
		m := string(b[:4])
		return m == "\xfe\xed\xfa\xce" || m == "\xfe\xed\xfa\xcf" || m == "\xcf\xfa\xed\xfe" || m == "\xce\xfa\xed\xfe" || m == "\xca\xfe\xba\xbe"
	case '7':
		return bytes.HasPrefix(b, []byte("7z\xbc\xaf\x27\x1c"))
	case 'X': // the EICAR test file, a program of DOS, which has no other mark
		return bytes.HasPrefix(b, []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$`))
	case 'R':
		return bytes.HasPrefix(b, []byte("Rar!\x1a\x07"))
	case '!':
		return bytes.HasPrefix(b, []byte("!<arch>\n"))
	case 0xed:
		return string(b[:4]) == "\xed\xab\xee\xdb" // rpm
	case 0:
		return string(b[:4]) == "\x00asm"
	}
	return len(b) > 262 && string(b[257:262]) == "ustar"
}

// isScriptName knows scripts and archives that need not begin in a special way.
func isScriptName(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".sh", ".bash", ".ps1", ".bat", ".cmd", ".vbs", ".php", ".phtml", ".jsp", ".aspx", ".tgz", ".txz", ".tbz2", ".tar", ".cab", ".iso", ".dmg", ".lnk", ".hta":
		return true
	case ".gz", ".xz", ".bz2", ".zst":
		return strings.HasSuffix(strings.TrimSuffix(strings.ToLower(name), path.Ext(name)), ".tar")
	}
	return false
}
