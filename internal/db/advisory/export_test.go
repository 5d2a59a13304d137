package advisory

import "github.com/gatehouse-dev/gatehouse"

// CachedDocs returns how many documents an open file keeps unpacked, and their
// counted bytes.
func (f *File) CachedDocs() (n, bytes int) { return len(f.docs.byN), f.docs.bytes }

// DocCacheBytes is the bound of that cache.
const DocCacheBytes = docCacheBytes

// EncodeEntry and DecodeEntry are the codec of Affected entries.
func EncodeEntry(list []gatehouse.Affected) []byte { return encodeEntry(list) }

func DecodeEntry(n Name, b []byte) ([]gatehouse.Affected, error) { return decodeEntry(n, b) }

func DecodeCore(id string, b []byte) (gatehouse.Advisory, error) { return decodeCore(id, b) }

// DecodeTable reads the rows of a table as KEV's are.
func DecodeTable(b []byte) (rows int, err error) {
	err = numbersIn(b, []uint64{cveMax, daysMax, daysMax, 1}, func(row []uint64) {
		if day(row[1]).Year() > 9999 {
			panic("a year that JSON cannot name")
		}
		rows++
	})
	return rows, err
}

// Unwritten is what an error of the disk becomes.
func Unwritten(err error) error { return unwritten(err) }
