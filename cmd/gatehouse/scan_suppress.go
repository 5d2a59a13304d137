package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/vex"
)

// suppress sets aside what ignore files and VEX documents say does not count.
// The files are the user's own: whoever types --vex vouches for it.
func (r *scanRun) suppress() error {
	ignores, err := r.ignoreFiles()
	if err != nil {
		return err
	}
	for _, ignore := range ignores {
		for _, why := range ignore.Expired {
			r.app.say("note: %s", why)
		}
		r.findings = ignore.Apply(r.findings, r.inventory.Distro)
	}
	statements, err := r.statements()
	if err != nil {
		return err
	}
	r.findings = vex.Apply(r.findings, r.subject(), statements)
	return nil
}

// ignoreFiles reads the file of --ignorefile, else those of the usual names in
// the current directory.
func (r *scanRun) ignoreFiles() (out []vex.Ignore, err error) {
	names := vex.IgnoreFiles
	if r.opts.ignorefile != "" {
		names = []string{r.opts.ignorefile}
	}
	for _, name := range names {
		b, err := readSmall(name, vex.IgnoreSizeMax)
		if errors.Is(err, fs.ErrNotExist) && r.opts.ignorefile == "" {
			continue
		}
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the ignore file cannot be read: %w", err).WithHint("name a file that exists with --ignorefile")
		}
		ignore, err := vex.ParseIgnore(name, b, time.Now())
		if err != nil {
			return nil, err
		}
		out = append(out, ignore)
	}
	return out, nil
}

// statements reads the documents of --vex.
func (r *scanRun) statements() (out []vex.Statement, err error) {
	for _, source := range r.opts.vex {
		if source == "oci" || source == "repo" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "--vex %s would believe whoever can push", source).
				WithHint("verify the document and name its file; on a server, policies name whose VEX counts")
		}
		b, err := readSmall(source, vex.SizeMax)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the VEX document cannot be read: %w", err).WithHint("name a file that exists with --vex")
		}
		doc, err := vex.Parse(b, source)
		if err != nil {
			return nil, err
		}
		for _, w := range doc.Warnings {
			r.app.say("note: %s: %s", source, w)
		}
		out = append(out, doc.Statements...)
	}
	return out, nil
}

// subject is what VEX statements may call the target.
func (r *scanRun) subject() vex.Subject {
	s := vex.Subject{Distro: r.inventory.Distro, Packages: r.inventory.Packages}
	if r.target.Source != "directory" && r.target.Source != "sbom" {
		s.Ref, _ = gatehouse.ParseRef(r.target.Reference) // a path is none
	}
	if r.target.Digest != "" {
		s.Digests = []gatehouse.Digest{r.target.Digest}
	}
	if _, arch, ok := strings.Cut(r.target.Platform, "/"); ok {
		s.Arch, _, _ = strings.Cut(arch, "/")
	}
	return s
}

// readSmall reads a file of max bytes at most and one more, so that whoever
// parses it sees that it is too large.
func readSmall(name string, max int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, max+1))
}
