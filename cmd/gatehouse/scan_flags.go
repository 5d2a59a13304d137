package main

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/index/licence"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// exitCodeMax is the largest that a process can exit with; 256 would be 0.
const exitCodeMax = 255

// scanOptions are the flags of the scanning commands, with Trivy's names.
type scanOptions struct {
	// what is looked at
	input, platform    string
	imageSrc           []string
	skipDirs, skipFile []string
	parallel           int
	// what is looked for, and by which advisories
	scanners, pkgTypes []string
	db, server, clamd  string
	maxDBAge           time.Duration
	offline            bool
	// what is listed
	severity, ignoreStatus                 []string
	licenses                               licence.Settings
	ignoreUnfixed, listAll, showSuppressed bool
	ignorefile                             string
	vex                                    []string
	baseline, failOn, explain              string
	format, template, output               string
	// how it ends
	exitCode, exitOnEOL int
	exitCodeSet         bool
	explainSet          bool
	timeout             time.Duration
	insecure            bool
	noProgress          bool
	cacheDir            string
	clearCache          bool
	local               fetch.LocalOptions
	hints               []string // about flags, printed first

	// filled in by check
	platformOf  fetch.Platform
	wants       []gatehouse.Kind
	wantsChosen bool // --scanners was typed
	filter      report.Filter
	analysis    index.Analysis
	templateOf  string

	licensePolicy licence.Policy
}

// scannerNames are the values of --scanners, with the names that Trivy had or
// has for them.
var scannerNames = map[string]gatehouse.Kind{
	"vuln": gatehouse.KindVulnerability, "secret": gatehouse.KindSecret, "misconfig": gatehouse.KindMisconfig,
	"malware": gatehouse.KindMalware, "license": gatehouse.KindLicense,
	"vulnerability": gatehouse.KindVulnerability, "config": gatehouse.KindMisconfig, "licence": gatehouse.KindLicense,
}

// defaultScanners are Trivy's, and malware, which costs nothing.
var defaultScanners = []string{"vuln", "secret", "malware"}

// allFormats are those of reports and bills of materials.
func allFormats() []string { return append(report.Formats(), sbomFormats...) }

func (o *scanOptions) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.format, "format", "f", "table", "output format: "+strings.Join(allFormats(), ", "))
	f.StringVarP(&o.template, "template", "t", "", "template of the format template: text, @FILE, or one of @"+strings.Join(report.Templates(), ", @"))
	f.StringVarP(&o.output, "output", "o", "", "write the report to this file instead of standard output")
	f.StringSliceVar(&o.scanners, "scanners", defaultScanners, "what to look for: vuln, secret, misconfig, malware, license")
	f.StringSliceVarP(&o.severity, "severity", "s", nil, "list only these severities, for example CRITICAL,HIGH")
	f.BoolVar(&o.ignoreUnfixed, "ignore-unfixed", false, "list only vulnerabilities that a newer version repairs")
	f.StringSliceVar(&o.ignoreStatus, "ignore-status", nil, "leave out vulnerabilities of these states, for example will_not_fix,fix_deferred")
	f.StringSliceVar(&o.licenses.Ignored, "ignored-licenses", nil, "leave out these licences (SPDX ids)")
	for _, l := range []struct {
		class licence.Class
		names *[]string
	}{
		{licence.Forbidden, &o.licenses.Forbidden}, {licence.Restricted, &o.licenses.Restricted}, {licence.Reciprocal, &o.licenses.Reciprocal},
		{licence.Notice, &o.licenses.Notice}, {licence.Permissive, &o.licenses.Permissive}, {licence.Unencumbered, &o.licenses.Unencumbered},
	} {
		f.StringSliceVar(l.names, "license-"+string(l.class), nil, "these licences are of the class "+string(l.class)+" (SPDX ids)")
	}
	f.StringSliceVar(&o.pkgTypes, "pkg-types", []string{"os", "library"}, "which packages: os, library")
	f.StringVar(&o.ignorefile, "ignorefile", "", "file that says which findings do not count (default: .gatehouseignore, .trivyignore.yaml, .trivyignore if they are here)")
	f.StringSliceVar(&o.vex, "vex", nil, "VEX document (OpenVEX, CSAF, CycloneDX) that says what an image is not affected by")
	f.BoolVar(&o.showSuppressed, "show-suppressed", false, "list also what an ignore file, VEX or a baseline suppresses, with the cause")
	f.StringVar(&o.baseline, "baseline", "", "do not count what this image, archive or JSON report has already")
	f.StringVar(&o.failOn, "fail-on", "", "new: exit with 1 (or --exit-code) if there is something that the --baseline does not have")
	f.StringVar(&o.explain, "explain", "", "say why this vulnerability is or is not listed, instead of a report")
	f.IntVar(&o.exitCode, "exit-code", 0, "exit with this code if something is listed; 2 if the image could not be looked at whole")
	f.IntVar(&o.exitOnEOL, "exit-on-eol", 0, "exit with this code if the distribution gets no more fixes")
	f.BoolVar(&o.listAll, "list-all-pkgs", false, "add all packages to the report")
	f.StringSliceVar(&o.skipDirs, "skip-dirs", nil, "do not look into these directories (patterns, ** is any depth)")
	f.StringSliceVar(&o.skipFile, "skip-files", nil, "do not look at these files")
	f.StringVar(&o.db, "db", "", "advisory file (default: the one that gatehouse db update and import write)")
	f.StringVar(&o.server, "server", "", "match by the advisories of this server (URL)")
	bindDatabaseAge(cmd, &o.maxDBAge)
	f.StringVar(&o.clamd, "clamd", "", "show executables, scripts and archives to this clamd: tcp://HOST:PORT or unix:PATH")
	f.BoolVar(&o.offline, "offline", false, "never use the network")
	f.BoolVar(&o.noProgress, "no-progress", false, "show no progress bar")
	f.StringVar(&o.cacheDir, "cache-dir", "", "where layers and advisories are kept (default: $XDG_CACHE_HOME/gatehouse)")
	f.BoolVar(&o.clearCache, "clear-cache", false, "forget what is known of layers and images, and look again")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "give up after this time")
	o.bindTrivy(f)
}

func (o *scanOptions) bindImage(cmd *cobra.Command, sources ...string) {
	f := cmd.Flags()
	f.StringVar(&o.platform, "platform", "", "which image of an index, for example linux/arm64")
	f.BoolVar(&o.insecure, "insecure", false, "speak to the registry without TLS, or without verifying its certificate")
	f.IntVar(&o.parallel, "parallel", 0, "layers that are read at once (0: as many as there are processors, 4 at most)")
	f.StringSliceVar(&o.imageSrc, "image-src", sources, "where to look for the image, in this order: docker, containerd, podman, remote")
	f.StringVar(&o.local.DockerHost, "docker-host", "", "socket of the Docker daemon")
	f.StringVar(&o.local.PodmanHost, "podman-host", "", "socket of Podman's service")
	for _, name := range []string{"docker-host", "podman-host"} {
		f.Lookup(name).Hidden = true
	}
}

// trivyFlag is a flag of Trivy that needs nothing here.
type trivyFlag struct {
	name, why string
	value     bool // it takes one
}

// trivyFlags are accepted so that scripts run, with a hint that says why they
// do nothing. What would silently weaken a scan is not among them.
var trivyFlags = []trivyFlag{
	{"offline-scan", "a scan asks nobody about packages; --offline also keeps it from registries", false},
	{"skip-db-update", "a scan updates nothing; gatehouse db update does", false},
	{"skip-java-db-update", "there is no database of Java archives", false},
	{"skip-check-update", "the checks are part of the program", false},
	{"skip-policy-update", "the checks are part of the program", false},
	{"skip-vex-repo-update", "no VEX repository is asked", false},
	{"db-repository", "a scan updates nothing; gatehouse db update has it", true},
	{"java-db-repository", "there is no database of Java archives", true},
	{"checks-bundle-repository", "the checks are part of the program", true},
	{"cache-backend", "the cache is a directory", true},
	{"cache-ttl", "the cache knows by digests what is current", true},
	{"dependency-tree", "no tree is drawn; the JSON report names the file of each package", false},
	{"removed-pkgs", "packages of deleted layers are not installed", false},
	{"include-deprecated-checks", "there are none", false},
	{"license-full", "licences are read from packages", false},
	{"detection-priority", "matching is always precise", true},
	{"pkg-relationships", "all relationships are listed", true},
	{"sbom-sources", "the image itself is read", true},
	{"rekor-url", "the image itself is read", true},
	{"disable-telemetry", "there is none", false},
	{"skip-version-check", "there is none", false},
	{"token-header", "GATEHOUSE_USERNAME and GATEHOUSE_PASSWORD are who you are at --server", true},
}

func (o *scanOptions) bindTrivy(f *pflag.FlagSet) {
	for _, t := range trivyFlags {
		f.Var(&acceptedFlag{o: o, flag: t}, t.name, "accepted for Trivy's scripts")
		f.Lookup(t.name).Hidden = true
		if !t.value {
			f.Lookup(t.name).NoOptDefVal = "true"
		}
	}
	// Names that Trivy had before.
	f.Var(aliasFlag{f, "scanners"}, "security-checks", "Trivy's old name of --scanners")
	f.Var(aliasFlag{f, "pkg-types"}, "vuln-type", "Trivy's old name of --pkg-types")
	f.Lookup("security-checks").Hidden, f.Lookup("vuln-type").Hidden = true, true
}

// acceptedFlag notes that a flag was typed which does nothing.
type acceptedFlag struct {
	o    *scanOptions
	flag trivyFlag
}

func (a *acceptedFlag) String() string { return "" }
func (a *acceptedFlag) Type() string {
	if a.flag.value {
		return "string"
	}
	return "bool"
}

func (a *acceptedFlag) Set(string) error {
	a.o.hints = append(a.o.hints, "--"+a.flag.name+" does nothing here: "+a.flag.why)
	return nil
}

// aliasFlag sets another flag.
type aliasFlag struct {
	f    *pflag.FlagSet
	name string
}

func (aliasFlag) String() string       { return "" }
func (aliasFlag) Type() string         { return "stringSlice" }
func (a aliasFlag) Set(s string) error { return a.f.Set(a.name, s) }

// check reads the flags that are more than words, so that a mistake is told
// before the work and not after it.
func (o *scanOptions) check(cmd *cobra.Command) error {
	o.exitCodeSet = cmd.Flags().Changed("exit-code")
	o.explainSet = cmd.Flags().Changed("explain")
	o.wantsChosen = cmd.Flags().Changed("scanners")
	var err error
	if o.platform != "" {
		if o.platformOf, err = fetch.ParsePlatform(o.platform); err != nil {
			return err
		}
	}
	for _, check := range []func() error{o.checkScanners, o.checkFilter, o.checkFormat, o.checkGate, o.checkSkips} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o *scanOptions) checkScanners() error {
	for _, s := range o.scanners {
		kind, ok := scannerNames[strings.TrimSpace(s)]
		if !ok {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "scanner %q is unknown", s).WithHint("use vuln, secret, misconfig, malware, license, or several with commas")
		}
		if !slices.Contains(o.wants, kind) {
			o.wants = append(o.wants, kind)
		}
	}
	if len(o.wants) == 0 && !slices.Contains(sbomFormats, o.format) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--scanners names nothing to look for").WithHint("leave it out, or name one")
	}
	for _, t := range o.pkgTypes {
		if t != "os" && t != "library" {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "package type %q is unknown", t).WithHint("use os, library or os,library")
		}
	}
	return nil
}

// statusNames are the values of --ignore-status. Findings of some never appear.
var statusNames = []string{
	"unknown", "not_affected", gatehouse.StatusAffected, gatehouse.StatusFixed, "under_investigation",
	gatehouse.StatusWillNotFix, gatehouse.StatusFixDeferred, gatehouse.StatusEndOfLife,
}

func (o *scanOptions) checkFilter() error {
	o.filter = report.Filter{Kinds: o.wants, IgnoreUnfixed: o.ignoreUnfixed, IgnoreStatus: o.ignoreStatus, ShowSuppressed: o.showSuppressed}
	policy, strange, err := o.licenses.Policy()
	if err != nil {
		return err
	}
	o.licensePolicy = policy
	if hint := licence.Strange(strange); hint != "" {
		o.hints = append(o.hints, hint)
	}
	for _, s := range o.severity {
		sev, err := gatehouse.ParseSeverity(strings.TrimSpace(s))
		if err != nil {
			return err
		}
		o.filter.Severities = append(o.filter.Severities, sev)
	}
	for _, s := range o.ignoreStatus {
		if !slices.Contains(statusNames, s) {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "status %q is unknown", s).WithHint("use %s", strings.Join(statusNames, ", "))
		}
	}
	return nil
}

func (o *scanOptions) checkFormat() error {
	if !slices.Contains(allFormats(), o.format) {
		hint := "use one of: " + strings.Join(allFormats(), ", ")
		if o.format == "asff" {
			hint = "in Trivy it is a template, which works here: --format template --template @asff.tpl; formats are " + strings.Join(allFormats(), ", ")
		}
		return gatehouse.Errorf(gatehouse.CodeInvalid, "format %q is unknown", o.format).WithHint("%s", hint)
	}
	if o.format != "template" {
		if o.template != "" {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "--template belongs to the format template, not to %s", o.format).WithHint("add --format template")
		}
		return nil
	}
	var err error
	if o.templateOf, err = report.LoadTemplate(o.template); err != nil {
		return err
	}
	return report.CheckTemplate(o.templateOf)
}

func (o *scanOptions) checkGate() error {
	for name, code := range map[string]int{"--exit-code": o.exitCode, "--exit-on-eol": o.exitOnEOL} {
		if code < 0 || code > exitCodeMax {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s %d is no exit code", name, code).WithHint("use 1 to %d", exitCodeMax)
		}
	}
	switch {
	case o.failOn != "" && o.failOn != "new":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--fail-on %q is unknown", o.failOn).WithHint("use --fail-on new, or --exit-code 1 for every finding")
	case o.failOn != "" && o.baseline == "":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--fail-on new needs something to compare with").WithHint("name it with --baseline IMAGE_OR_REPORT")
	case o.explainSet && o.explain == "":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--explain names nothing").WithHint("for example --explain CVE-2024-6387")
	case o.explain != "" && o.format != "table" && o.format != "json":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--explain has the formats table and json").WithHint("leave --format out")
	case o.offline && o.server != "":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--offline and --server exclude each other").WithHint("leave one out")
	}
	return nil
}

// gated reports whether the exit code shall tell of findings, and with which.
func (o *scanOptions) gated() (code int, gated bool) {
	switch {
	case o.exitCodeSet:
		return o.exitCode, o.exitCode != 0
	case o.failOn != "":
		return 1, true
	}
	return 0, false
}

// packages reports whether --pkg-types lets a package through.
func (o *scanOptions) packages(p gatehouse.Package) bool {
	if p.OS() {
		return slices.Contains(o.pkgTypes, "os")
	}
	return slices.Contains(o.pkgTypes, "library")
}

// matches reports whether advisories are needed: a bill of materials without
// --scanners lists packages and asks nobody what is wrong with them.
func (o *scanOptions) matches() bool {
	_, gated := o.gated()
	listsPackages := slices.Contains(sbomFormats, o.format) || o.format == "github"
	if listsPackages && !o.wantsChosen && !gated && o.explain == "" {
		return false
	}
	return o.explain != "" || slices.Contains(o.wants, gatehouse.KindVulnerability) || slices.Contains(o.wants, gatehouse.KindMalware)
}
