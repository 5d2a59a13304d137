package licence

import "strings"

// entry is one licence.
type entry struct {
	id    string
	class Class
	// versions: its id says whether later versions will do (-only, -or-later).
	versions bool
}

// table has the ids by their lower-case form: the lists of licenseclassifier, and
// what else packages of distributions and registries are often under. The latter
// are sorted in by what they ask for.
var table = tableOf(map[Class][]string{
	Forbidden: {
		"AGPL-1.0*", "AGPL-3.0*", "BUSL-1.1", "CC-BY-NC-1.0", "CC-BY-NC-2.0", "CC-BY-NC-2.5", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-1.0",
		"CC-BY-NC-ND-2.0", "CC-BY-NC-ND-2.5", "CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-1.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-2.5",
		"CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0", "Commons-Clause", "Elastic-2.0", "Facebook-2-Clause", "Facebook-3-Clause", "Facebook-Examples", "JSON",
		"PolyForm-Noncommercial-1.0.0", "PolyForm-Small-Business-1.0.0", "SSPL-1.0", "WTFPL",
	},
	Restricted: {
		"BCL", "CC-BY-ND-1.0", "CC-BY-ND-2.0", "CC-BY-ND-2.5", "CC-BY-ND-3.0", "CC-BY-ND-4.0", "CC-BY-SA-1.0", "CC-BY-SA-2.0", "CC-BY-SA-2.5",
		"CC-BY-SA-3.0", "CC-BY-SA-4.0", "CECILL-2.0", "CECILL-2.1", "EUPL-1.0", "EUPL-1.1", "EUPL-1.2", "GFDL-1.1*", "GFDL-1.2*", "GFDL-1.3*", "GPL-1.0*",
		"GPL-2.0*", "GPL-3.0*", "LGPL-2.0*", "LGPL-2.1*", "LGPL-3.0*", "MS-RL", "NPL-1.0", "NPL-1.1", "OSL-1.0", "OSL-1.1", "OSL-2.0", "OSL-2.1",
		"OSL-3.0", "QPL-1.0", "Sleepycat",
	},
	Reciprocal: {
		"APSL-1.0", "APSL-1.1", "APSL-1.2", "APSL-2.0", "CDDL-1.0", "CDDL-1.1", "CECILL-C", "CPL-1.0", "EPL-1.0", "EPL-2.0", "FreeImage", "IPL-1.0",
		"LPPL-1.3c", "MPL-1.0", "MPL-1.1", "MPL-2.0", "OFL-1.0", "OFL-1.1", "Ruby", "SISSL", "Vim",
	},
	Notice: {
		"AFL-1.1", "AFL-1.2", "AFL-2.0", "AFL-2.1", "AFL-3.0", "Apache-1.0", "Apache-1.1", "Apache-2.0", "Artistic-1.0", "Artistic-1.0-cl8",
		"Artistic-1.0-Perl", "Artistic-2.0", "Beerware", "BlueOak-1.0.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-2-Clause-FreeBSD", "BSD-2-Clause-NetBSD",
		"BSD-2-Clause-Patent", "BSD-2-Clause-Views", "BSD-3-Clause", "BSD-3-Clause-Attribution", "BSD-3-Clause-Clear", "BSD-3-Clause-LBNL",
		"BSD-3-Clause-Modification", "BSD-4-Clause", "BSD-4-Clause-UC", "BSD-Protection", "BSD-Source-Code", "BSL-1.0", "bzip2-1.0.6", "CC-BY-1.0",
		"CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CECILL-B", "CNRI-Python", "curl", "ECL-2.0", "FTL", "HPND", "HPND-sell-variant", "ICU", "IJG",
		"ImageMagick", "Info-ZIP", "ISC", "Libpng", "libpng-2.0", "libtiff", "Lil-1.0", "Linux-OpenIB", "LPL-1.0", "LPL-1.02", "MIT", "MIT-advertising",
		"MIT-CMU", "MIT-feh", "mpich2", "MS-PL", "Mup", "NCSA", "NTP", "OGC-1.0", "OLDAP-2.8", "OpenSSL", "PHP-3.0", "PHP-3.01", "PIL", "PostgreSQL",
		"PSF-2.0", "Python-2.0", "Python-2.0.1", "SGI-B-1.0", "SGI-B-1.1", "SGI-B-2.0", "SMLNJ", "Spencer-94", "SSH-OpenSSH", "TCL", "TCP-wrappers",
		"Unicode-3.0", "Unicode-DFS-2015", "Unicode-DFS-2016", "Unicode-TOU", "UPL-1.0", "W3C", "W3C-19980720", "W3C-20150513", "X11", "Xdebug-1.03",
		"XFree86-1.1", "Xnet", "Zend-2.0", "Zlib", "zlib-acknowledgement", "ZPL-1.1", "ZPL-2.0", "ZPL-2.1",
	},
	Permissive: {
		"FSFAP", "FSFUL", "FSFULLR", "MIT-0",
	},
	Unencumbered: {
		"0BSD", "blessing", "CC-PDDC", "CC0-1.0", "LicenseRef-Public-Domain", "PDDL-1.0", "SAX-PD", "Unlicense",
	},
})

// tableOf reads lists of ids; a star marks those with versions.
func tableOf(lists map[Class][]string) map[string]entry {
	all := map[string]entry{}
	for class, ids := range lists {
		for _, id := range ids {
			id, versions := strings.CutSuffix(id, "*")
			all[strings.ToLower(id)] = entry{id, class, versions}
		}
	}
	return all
}

// aliases are names that follow no pattern, in lower case.
var aliases = map[string]string{
	"gnu library or lesser general public license (lgpl)": "LGPL-2.0-or-later",
	"academic free 2.1":    "AFL-2.1",
	"academic free 3.0":    "AFL-3.0",
	"afl":                  "AFL-3.0",
	"bouncy castle":        "MIT",
	"bsd with advertising": "BSD-4-Clause",
	"bsd with attribution": "BSD-3-Clause-Attribution",
	"bzip2":                "bzip2-1.0.6",
	"cc0":                  "CC0-1.0",
	"cc0 1.0":              "CC0-1.0",
	"cc0 1.0 universal":    "CC0-1.0",
	"common development and distribution 1.0":                    "CDDL-1.0",
	"common development and distribution license":                "CDDL-1.0",
	"common development and distribution license 1.0 (cddl-1.0)": "CDDL-1.0",
	"common public 1.0":         "CPL-1.0",
	"creative commons zero 1.0": "CC0-1.0",
	"curl":                      "curl",
	"eupl 1.2":                  "EUPL-1.2",
	"european union public 1.2": "EUPL-1.2",
	"ftl":                       "FTL",
	"go":                        "BSD-3-Clause",
	"historical permission notice and disclaimer":        "HPND",
	"historical permission notice and disclaimer (hpnd)": "HPND",
	"hpnd":                               "HPND",
	"ibm public 1.0":                     "IPL-1.0",
	"ijg":                                "IJG",
	"isc":                                "ISC",
	"isc license":                        "ISC",
	"iscl":                               "ISC",
	"json":                               "JSON",
	"libpng":                             "Libpng",
	"libtiff":                            "libtiff",
	"lppl":                               "LPPL-1.3c",
	"microsoft public":                   "MS-PL",
	"mit 0":                              "MIT-0",
	"mit style":                          "MIT",
	"mit with advertising":               "MIT-advertising",
	"mit x11":                            "MIT",
	"mit/x11":                            "MIT",
	"ms pl":                              "MS-PL",
	"ncsa":                               "NCSA",
	"ntp":                                "NTP",
	"openldap":                           "OLDAP-2.8",
	"openldap 2.8":                       "OLDAP-2.8",
	"openssl":                            "OpenSSL",
	"pd":                                 "LicenseRef-Public-Domain",
	"php":                                "PHP-3.01",
	"php 3.0":                            "PHP-3.0",
	"php 3.01":                           "PHP-3.01",
	"postgresql":                         "PostgreSQL",
	"psf":                                "PSF-2.0",
	"psf 2":                              "PSF-2.0",
	"psf 2.0":                            "PSF-2.0",
	"psfl":                               "PSF-2.0",
	"public domain":                      "LicenseRef-Public-Domain",
	"public-domain":                      "LicenseRef-Public-Domain",
	"publicdomain":                       "LicenseRef-Public-Domain",
	"python":                             "Python-2.0",
	"python 2":                           "Python-2.0",
	"python foundation":                  "PSF-2.0",
	"python software foundation license": "PSF-2.0",
	"ruby":                               "Ruby",
	"ruby's":                             "Ruby",
	"sleepycat":                          "Sleepycat",
	"sspl":                               "SSPL-1.0",
	"tcl":                                "TCL",
	"tcl/tk":                             "TCL",
	"the unlicense":                      "Unlicense",
	"unicode":                            "Unicode-DFS-2016",
	"universal permissive 1.0":           "UPL-1.0",
	"university of illinois/ncsa open source license": "NCSA",
	"unlicence":   "Unlicense",
	"upl":         "UPL-1.0",
	"vim":         "Vim",
	"w3c":         "W3C",
	"wtfpl":       "WTFPL",
	"wtfpl 2":     "WTFPL",
	"x11":         "X11",
	"x11 mit":     "MIT",
	"zlib":        "Zlib",
	"zlib libpng": "Zlib",
	"zlib/libpng": "Zlib",
}
