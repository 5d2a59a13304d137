package feed

import (
	"bytes"
	"encoding/json"

	"github.com/gatehouse-dev/gatehouse/internal/feed/epss"
)

// kind is what an unpacked file is.
type kind int

const (
	kindUnknown kind = iota
	kindOSV
	kindNVD
	kindOldNVD // JSON 1.1, which NVD no longer publishes
	kindKEV
	kindEPSS
)

// kindOf tells by a file's first bytes what it is. What is JSON and nothing else
// that is known counts as OSV, whose reader says what is wrong with it.
func kindOf(head []byte) kind {
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	switch {
	case epss.Is(head):
		return kindEPSS
	case bytes.HasPrefix(head, []byte("[")):
		return kindOSV
	case !bytes.HasPrefix(head, []byte("{")):
		return kindUnknown
	}
	d := json.NewDecoder(bytes.NewReader(head))
	if _, err := d.Token(); err != nil {
		return kindOSV
	}
	for {
		key, err := d.Token()
		if err != nil {
			return kindOSV // none of the keys that tell
		}
		switch key {
		case "catalogVersion", "dateReleased":
			return kindKEV
		case "CVE_data_type", "CVE_Items":
			return kindOldNVD
		case "resultsPerPage", "totalResults":
			return kindNVD
		case "id", "schema_version", "affected":
			return kindOSV
		case "vulnerabilities":
			return kindOfList(d)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return kindOSV
		}
		if key == "format" && string(value) == `"NVD_CVE"` {
			return kindNVD
		}
	}
}

// kindOfList looks at the first key of the first vulnerability.
func kindOfList(d *json.Decoder) kind {
	for range 3 { // [ { key
		t, err := d.Token()
		if err != nil {
			return kindOSV
		}
		switch t {
		case "cve":
			return kindNVD
		case "cveID", "vendorProject":
			return kindKEV
		}
	}
	return kindOSV
}
