package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

const (
	startRounds   = 5
	startWait     = 30 * time.Second
	idleWait      = 5 * time.Second // between the first answer and the look at memory
	startLimitMS  = 300
	memoryLimitMB = 120
)

// measureStart starts the real server: how long from the start of the process
// to its first answered request, on a fresh data directory and on one that is
// there, and how much memory it holds once it is idle.
func measureStart(ctx context.Context, b *bench) ([]row, error) {
	binary, err := b.buildGatehouse(ctx)
	if err != nil {
		return nil, err
	}
	var fresh, again []time.Duration
	var rss, peak int64
	for i := range startRounds {
		data := filepath.Join(b.work, fmt.Sprintf("data-%d", i))
		first, err := startOnce(ctx, binary, data, nil)
		if err != nil {
			return nil, err
		}
		fresh = append(fresh, first)
		var look func(pid int) error
		if i == startRounds-1 {
			look = func(pid int) error {
				time.Sleep(idleWait)
				rss, peak, err = memory(pid)
				return err
			}
		}
		second, err := startOnce(ctx, binary, data, look)
		if err != nil {
			return nil, err
		}
		again = append(again, second)
	}
	ms := func(list []time.Duration) float64 { return float64(median(list).Microseconds()) / 1000 }
	return []row{
		under(fmt.Sprintf("start to first answered request, median of %d", startRounds), ms(again), startLimitMS, "ms"),
		under("— the same on an empty data directory", ms(fresh), startLimitMS, "ms"),
		under(fmt.Sprintf("idle memory (RSS) %s after start", idleWait), float64(rss)/(1<<20), memoryLimitMB, "MiB"),
		{what: "— its peak until then", measured: fmt.Sprintf("%.4g MiB", float64(peak)/(1<<20))},
	}, nil
}

// startOnce starts the server, lets look see the idle process, and stops it.
func startOnce(ctx context.Context, binary, data string, look func(pid int) error) (time.Duration, error) {
	s, err := startServer(ctx, binary, data)
	if err != nil {
		return 0, err
	}
	if look != nil {
		err = look(s.cmd.Process.Pid)
	}
	return s.took, errors.Join(err, s.stop())
}

var memoryLine = regexp.MustCompile(`(?m)^(VmRSS|VmHWM):\s+(\d+) kB$`)

// memory reads the resident set of a process, now and at its peak, in bytes
// (proc(5)).
func memory(pid int) (rss, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for _, m := range memoryLine.FindAllSubmatch(b, -1) {
		n, err := strconv.ParseInt(string(m[2]), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		if string(m[1]) == "VmRSS" {
			rss = n << 10
		} else {
			peak = n << 10
		}
	}
	if rss == 0 {
		return 0, 0, errors.New("/proc tells no resident set")
	}
	return rss, peak, nil
}
