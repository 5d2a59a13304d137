package secret

import "encoding/binary"

// span is a range of a file, in bytes.
type span struct{ from, to int64 }

// machineCode returns the part of an ELF file that holds instructions, which are
// no text and half of the file, or an empty span. head is the begin of the file.
//
// Linkers of today give instructions a segment of their own and put constants
// into one that can only be read. Where there is no such segment, the constants
// are among the instructions, and everything is looked at. (System V ABI,
// "Program Header".)
func machineCode(head []byte) span {
	const (
		load       = 1
		executable = 1
		readable   = 4
		headersMax = 32
	)
	if len(head) < 64 || string(head[:4]) != "\x7fELF" {
		return span{}
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	wide := head[4] == 2
	var at uint64
	var size, count int
	if wide {
		at, size, count = order.Uint64(head[32:]), int(order.Uint16(head[54:])), int(order.Uint16(head[56:]))
	} else {
		at, size, count = uint64(order.Uint32(head[28:])), int(order.Uint16(head[42:])), int(order.Uint16(head[44:]))
	}
	if count > headersMax || size < 32 || wide && size < 56 || at > uint64(len(head)) || int(at)+count*size > len(head) {
		return span{}
	}
	var code span
	constants := false
	for i := range count {
		h := head[int(at)+i*size:]
		var flags uint32
		var offset, length uint64
		if wide {
			flags, offset, length = order.Uint32(h[4:]), order.Uint64(h[8:]), order.Uint64(h[32:])
		} else {
			flags, offset, length = order.Uint32(h[24:]), uint64(order.Uint32(h[4:])), uint64(order.Uint32(h[16:]))
		}
		if order.Uint32(h) != load || offset > 1<<40 || length > 1<<40 {
			continue
		}
		switch {
		case flags&executable != 0 && code == span{}:
			code = span{int64(offset), int64(offset + length)}
		case flags == readable && code != span{} && length > 0:
			constants = true
		}
	}
	// Constants that begin in the page where the code ends are looked at whole.
	if code.from == 0 || !constants {
		return span{}
	}
	return code
}
