package lang

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	cpb "github.com/google/osv-scalibr/binary/proto/config_go_proto"
	"github.com/google/osv-scalibr/extractor/filesystem/language/java/archive"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	javaEntryMax    = 1 << 20  // bytes of one pom.properties or manifest
	javaEntriesMax  = 10_000   // of them in one archive
	javaDistilMax   = 32 << 20 // bytes of all of them
	manifestName    = "META-INF/MANIFEST.MF"
	manifestLineMax = 64 << 10 // bytes, continuation lines included
)

// Java reads a jar, war, ear or their like, and the archives inside it.
//
// osv-scalibr's extractor finds the packages, but it is given a distilled
// archive that holds nothing but pom.properties and the main section of the
// manifest: it reads inner archives whole into memory, up to the bound for all
// of them together, and a manifest that ends in the middle of a line leaves
// one of its goroutines behind for ever. Inner archives are opened here, one
// at a time, on disk beyond limits.MemoryMax.
//
// Packages that were found before an error are returned with it. Errors:
// ErrOther when the file is no archive.
func Java(ctx context.Context, name string, r *io.SectionReader, limits ArchiveLimits) ([]gatehouse.Package, error) {
	j := &java{ctx: ctx, limits: limits, left: limits.BytesMax}
	return j.archive(name, r, 1)
}

// IsZip reports whether a file with these first bytes is a zip archive.
func IsZip(head []byte) bool { return bytes.HasPrefix(head, []byte("PK\x03\x04")) }

// JavaOfAnyName is Java for an archive whose name does not say that it is one of
// Java, which the virtual machine does not ask for. Errors: ErrOther when nothing
// inside says so, or for a file called .zip that is damaged.
func JavaOfAnyName(ctx context.Context, name string, r *io.SectionReader, limits ArchiveLimits) ([]gatehouse.Package, error) {
	z, err := openZip(r, limits)
	if err != nil {
		if strings.EqualFold(path.Ext(name), ".zip") {
			err = ErrOther
		}
		return nil, err
	}
	if !slices.ContainsFunc(z.File, namesPackage) {
		return nil, ErrOther
	}
	return Java(ctx, "renamed.jar", r, limits)
}

// namesPackage reports whether an entry says what an archive of Java is.
func namesPackage(f *zip.File) bool {
	return strings.EqualFold(f.Name, manifestName) || path.Base(f.Name) == "pom.properties"
}

type java struct {
	ctx    context.Context
	limits ArchiveLimits
	left   int64 // bytes that may still be inflated
	open   int   // entries of the archives that are open, one in the other
}

func (j *java) archive(name string, r *io.SectionReader, depth int) ([]gatehouse.Package, error) {
	z, err := openZip(r, j.limits)
	if err != nil {
		return nil, err
	}
	if j.open += len(z.File); j.open > j.limits.EntriesMax {
		return nil, fmt.Errorf("archives in archives have more than %d entries", j.limits.EntriesMax)
	}
	defer func() { j.open -= len(z.File) }()
	distilled, main, err := j.distil(z)
	if err != nil {
		return nil, err
	}
	if renamed(name, main) {
		name = "renamed.jar"
	}
	packages, err := run(j.ctx, archive.New, javaConfig(), name, bytes.NewReader(distilled), int64(len(distilled)))
	if err != nil {
		return packages, err
	}
	for _, f := range z.File {
		if err := j.ctx.Err(); err != nil {
			return packages, err
		}
		if !archive.IsArchive(f.Name) || f.FileInfo().IsDir() {
			continue
		}
		inner, err := j.inner(f, depth+1)
		packages = append(packages, inner...)
		if len(packages) > j.limits.Packages {
			return packages, fmt.Errorf("archive holds more than %d packages", j.limits.Packages)
		}
		if err != nil && !errors.Is(err, ErrOther) {
			return packages, err
		}
	}
	return packages, nil
}

// inner opens an archive inside an archive.
func (j *java) inner(f *zip.File, depth int) ([]gatehouse.Package, error) {
	if depth > j.limits.Depth {
		return nil, fmt.Errorf("archives are nested more than %d deep", j.limits.Depth)
	}
	size := f.UncompressedSize64
	if size > uint64(j.limits.SizeMax) || !j.spend(size) {
		return nil, fmt.Errorf("inner archive %.200q of %d bytes is more than may be opened", f.Name, size)
	}
	content, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("inner archive %.200q: %w", f.Name, err)
	}
	defer content.Close()
	b := newBody(j.limits)
	defer b.Close()
	section, err := b.Load(j.ctx, content, int64(size))
	if err != nil {
		return nil, fmt.Errorf("inner archive %.200q: %w", f.Name, err)
	}
	return j.archive(path.Base(f.Name), section, depth)
}

// spend takes bytes that are to be inflated from what is left.
func (j *java) spend(size uint64) bool {
	if size > uint64(max(j.left, 0)) || j.limits.Spend != nil && !j.limits.Spend(int64(size)) {
		return false
	}
	j.left -= int64(size)
	return true
}

func javaConfig() *cpb.PluginConfig {
	yes, no := true, false
	return &cpb.PluginConfig{PluginSpecific: []*cpb.PluginSpecificConfig{{
		Config: &cpb.PluginSpecificConfig_JavaArchive{JavaArchive: &cpb.JavaArchiveConfig{
			MaxZipDepth: 1, MaxOpenedBytes: 2 * javaDistilMax, MinZipBytes: 1,
			ExtractFromFilename: &yes, ExtractFromPomXml: &no, HashJars: &no,
		}},
	}}}
}

// renamed reports whether the manifest says that the archive has another version
// than its file name. Where they agree the extractor takes the artifact from the
// file name, which Maven makes of it, and only the group from the manifest;
// where they do not, somebody renamed the file, and what is inside counts.
func renamed(name string, manifest []byte) bool {
	var title, version string
	for line := range bytes.Lines(manifest) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), ": ")
		switch {
		case strings.EqualFold(key, "Implementation-Title"):
			title = value
		case strings.EqualFold(key, "Implementation-Version"):
			version, _, _ = strings.Cut(value, " ")
		}
	}
	artifact := title != "" && !strings.ContainsFunc(title, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
	file := archive.ParseFilename(name)
	return artifact && file != nil && version != "" && version[0] >= '0' && version[0] <= '9' && version != file.Version
}

// distil makes an archive of what names the packages, and of nothing else, and
// returns the main section of the manifest beside it.
func (j *java) distil(z *zip.Reader) (distilled, main []byte, err error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	kept := 0
	for _, f := range z.File {
		if !namesPackage(f) {
			continue
		}
		manifest := strings.EqualFold(f.Name, manifestName)
		if kept++; kept > javaEntriesMax || out.Len() > javaDistilMax {
			return nil, nil, fmt.Errorf("archive names more than %d packages", javaEntriesMax)
		}
		if err := j.ctx.Err(); err != nil {
			return nil, nil, err
		}
		if !j.spend(min(f.UncompressedSize64, javaEntryMax)) {
			return nil, nil, errors.New("what names the packages of the archive has more bytes than may be read")
		}
		content, err := readEntry(f, javaEntryMax)
		if err != nil {
			return nil, nil, err
		}
		if manifest {
			content = mainSection(content)
			main = content
		}
		entry, err := w.CreateHeader(&zip.FileHeader{Name: f.Name, Method: zip.Store})
		if err != nil {
			return nil, nil, err
		}
		if _, err := entry.Write(content); err != nil {
			return nil, nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, nil, err
	}
	return out.Bytes(), main, nil
}

// mainSection returns the well-formed attributes of a manifest's main section
// (JAR File Specification, "JAR Manifest"): those of the archive itself, not of
// packages inside it.
func mainSection(manifest []byte) []byte {
	var out bytes.Buffer
	manifest = bytes.ReplaceAll(manifest, []byte("\r\n"), []byte("\n"))
	good := false
	length := 0
	for line := range bytes.SplitSeq(bytes.ReplaceAll(manifest, []byte("\r"), []byte("\n")), []byte("\n")) {
		if len(line) == 0 {
			if out.Len() > 0 {
				break // end of the main section
			}
			continue
		}
		if line[0] == ' ' {
			if good && length+len(line) < manifestLineMax {
				// Continuations are joined here: the parser would keep a blank.
				length += len(line)
				out.Truncate(out.Len() - 1)
				out.Write(line[1:])
				out.WriteByte('\n')
			}
			continue
		}
		key, _, ok := bytes.Cut(line, []byte(": "))
		good = ok && len(line) < manifestLineMax && isManifestKey(key)
		if good {
			length = len(line)
			out.Write(line)
			out.WriteByte('\n')
		}
	}
	return bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return ' '
		}
		return r
	}, out.Bytes())
}

func isManifestKey(key []byte) bool {
	for _, b := range key {
		if !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_') {
			return false
		}
	}
	return len(key) > 0 && len(key) <= 70
}
