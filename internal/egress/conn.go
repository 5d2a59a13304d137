package egress

import (
	"net"
	"time"
)

// stallConn gives up on a peer that sends or takes nothing for limit: a
// deadline for the whole transfer would cut off large layers, none at all would
// let a silent registry hold a worker for ever.
type stallConn struct {
	net.Conn
	limit time.Duration
}

func (c *stallConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *stallConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
