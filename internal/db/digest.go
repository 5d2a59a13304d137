package db

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
)

// dbDigest stores a digest as bytes: one for the algorithm, then the hash. The
// empty digest is NULL.
type dbDigest gatehouse.Digest

var algorithmByte = map[string]byte{gatehouse.SHA256: 1, gatehouse.SHA512: 2}

// Value implements driver.Valuer.
func (d dbDigest) Value() (driver.Value, error) {
	if d == "" {
		return nil, nil
	}
	g := gatehouse.Digest(d)
	raw, err := hex.DecodeString(g.Hex())
	if b := algorithmByte[g.Algorithm()]; err == nil && b != 0 {
		return append([]byte{b}, raw...), nil
	}
	return nil, fmt.Errorf("digest %q cannot be stored", string(d))
}

// Scan implements sql.Scanner.
func (d *dbDigest) Scan(src any) error {
	if src == nil {
		*d = ""
		return nil
	}
	raw, ok := src.([]byte)
	if !ok || len(raw) < 2 {
		return fmt.Errorf("a stored digest is %T", src)
	}
	for name, b := range algorithmByte {
		if raw[0] != b {
			continue
		}
		if want := gatehouse.NewHash(name).Size(); len(raw) != 1+want {
			return fmt.Errorf("a stored %s digest has %d bytes, not %d", name, len(raw)-1, want)
		}
		*d = dbDigest(gatehouse.NewDigest(name, raw[1:]))
		return nil
	}
	return fmt.Errorf("a stored digest has the unknown algorithm %d", raw[0])
}
