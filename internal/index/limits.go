package index

// Limits bound what one layer may cost. A zero field means its default, never
// "no limit".
type Limits struct {
	// UncompressedMax is the most bytes that a layer may inflate to, and the
	// most that a directory's files may be read for. Default 16 GiB.
	UncompressedMax int64
	// RatioMax is the most uncompressed bytes per compressed byte, looked at
	// once RatioAfter bytes have come out. Defaults 1000 and 64 MiB.
	RatioMax   int64
	RatioAfter int64
	// WindowMax is the largest zstd window in bytes, which is memory that the
	// layer's author makes us hold. Default 128 MiB, zstd's own for
	// decompression without --long.
	WindowMax int64
	// EntriesMax is the most tar entries of a layer. Default 2,000,000.
	EntriesMax int
	// PathMax is the longest path in bytes, DepthMax the most parts of one.
	// Defaults 4096 and 256.
	PathMax  int
	DepthMax int
	// PathBytesMax bounds the memory in bytes of all paths that are
	// remembered for one layer: whiteouts, replaced paths, sets.
	// Default 64 MiB.
	PathBytesMax int64
	// SetsMax is the most package sets of a layer. Default 200,000.
	SetsMax int
	// SetPackagesMax is the most packages of one file, PackagesMax of one
	// layer. Defaults 20,000 and 200,000.
	SetPackagesMax int
	PackagesMax    int
	// PackageBytesMax bounds the memory in bytes of all names, versions and
	// other texts of the layer's packages. Default 64 MiB.
	PackageBytesMax int64
	// FileMax is the largest file in bytes that any extractor is given,
	// whatever its own FileMax. Default 1 GiB.
	FileMax int64
	// BodiesMax is the most bytes that extractors are given in all for one
	// layer; it is what a sparse file costs, whose bytes are not in the
	// stream. Default 8 GiB.
	BodiesMax int64
	// SparseMax is the most bytes of sparse files that inspectors are shown of
	// one layer. Default 1 GiB.
	SparseMax int64
	// FindingsMax is the most findings of one layer, FilesMax the most digests
	// of files. Defaults 5,000 and 100,000.
	FindingsMax int
	FilesMax    int
	// MemoryMax is the largest file in bytes that is kept in memory while it
	// is read; a larger one goes to an unlinked file in TempDir.
	// Default 16 MiB.
	MemoryMax int64
	// TempDir is where; empty means the system's.
	TempDir string
	// ArchiveDepth is how deep archives in archives are opened, 1 being the
	// file itself; ArchiveBytesMax how many bytes are inflated of the archives of
	// one file, eight times as much of a layer; ArchiveEntriesMax how many entries
	// one archive may have. Defaults 4, 2 GiB and 200,000.
	ArchiveDepth      int
	ArchiveBytesMax   int64
	ArchiveEntriesMax int
}

const (
	mib = int64(1) << 20
	gib = int64(1) << 30

	// reasonsMax and reasonLengthMax bound what is told of a bad layer.
	reasonsMax      = 50
	reasonLengthMax = 400 // bytes
	// fieldMax is the longest name or version in bytes of a package.
	fieldMax = 1024
	// licensesMax is the most licences of one package.
	licensesMax = 32
	// archivesShare is how many times ArchiveBytesMax a layer may cost.
	archivesShare = 8
	// headSize is how many bytes a Sniffer sees.
	headSize = 16
)

// DefaultLimits returns the documented defaults.
func DefaultLimits() Limits {
	return Limits{
		UncompressedMax: 16 * gib, RatioMax: 1000, RatioAfter: 64 * mib, WindowMax: 128 * mib,
		EntriesMax: 2_000_000, PathMax: 4096, DepthMax: 256, PathBytesMax: 64 * mib,
		SetsMax: 200_000, SetPackagesMax: 20_000, PackagesMax: 200_000, PackageBytesMax: 64 * mib,
		FileMax: gib, BodiesMax: 8 * gib, SparseMax: gib, FindingsMax: 5_000, FilesMax: 100_000, MemoryMax: 16 * mib,
		ArchiveDepth: 4, ArchiveBytesMax: 2 * gib, ArchiveEntriesMax: 200_000,
	}
}

// withDefaults fills in the zero fields of l.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	l.UncompressedMax = orDefault(l.UncompressedMax, d.UncompressedMax)
	l.RatioMax = orDefault(l.RatioMax, d.RatioMax)
	l.RatioAfter = orDefault(l.RatioAfter, d.RatioAfter)
	l.WindowMax = orDefault(l.WindowMax, d.WindowMax)
	l.EntriesMax = orDefault(l.EntriesMax, d.EntriesMax)
	l.PathMax = orDefault(l.PathMax, d.PathMax)
	l.DepthMax = orDefault(l.DepthMax, d.DepthMax)
	l.PathBytesMax = orDefault(l.PathBytesMax, d.PathBytesMax)
	l.SetsMax = orDefault(l.SetsMax, d.SetsMax)
	l.SetPackagesMax = orDefault(l.SetPackagesMax, d.SetPackagesMax)
	l.PackagesMax = orDefault(l.PackagesMax, d.PackagesMax)
	l.PackageBytesMax = orDefault(l.PackageBytesMax, d.PackageBytesMax)
	l.FileMax = orDefault(l.FileMax, d.FileMax)
	l.BodiesMax = orDefault(l.BodiesMax, d.BodiesMax)
	l.SparseMax = orDefault(l.SparseMax, d.SparseMax)
	l.FindingsMax = orDefault(l.FindingsMax, d.FindingsMax)
	l.FilesMax = orDefault(l.FilesMax, d.FilesMax)
	l.MemoryMax = orDefault(l.MemoryMax, d.MemoryMax)
	l.ArchiveDepth = orDefault(l.ArchiveDepth, d.ArchiveDepth)
	l.ArchiveBytesMax = orDefault(l.ArchiveBytesMax, d.ArchiveBytesMax)
	l.ArchiveEntriesMax = orDefault(l.ArchiveEntriesMax, d.ArchiveEntriesMax)
	return l
}

func orDefault[T int | int64](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}
