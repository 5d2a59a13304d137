package main

// trivyInstead says for flags of Trivy that are not here what has their place.
// They are errors, since leaving them out would change the answer.
var trivyInstead = map[string]string{
	"username":                 "log in with docker login or podman login; their logins are used",
	"password":                 "log in with docker login or podman login; their logins are used",
	"registry-token":           "log in with docker login or podman login; their logins are used",
	"token":                    "GATEHOUSE_USERNAME and GATEHOUSE_PASSWORD are who you are at --server",
	"custom-headers":           "GATEHOUSE_USERNAME and GATEHOUSE_PASSWORD are who you are at --server",
	"debug":                    "-v shows each request and step",
	"trace":                    "-v shows each request and step",
	"compliance":               "--scanners misconfig has the checks of images; policies of a server decide by them",
	"ignore-policy":            "an ignore file (--ignorefile), VEX (--vex) or an exception of a server says what does not count",
	"report":                   "--format table sums up at its end; --quiet prints nothing else",
	"table-mode":               "--format table has one form",
	"image-config-scanners":    "--scanners misconfig,secret looks at the configuration of images, too",
	"misconfig-scanners":       "--scanners misconfig looks at images",
	"config-check":             "the checks of images are part of the program; gatehouse policy test runs policies of your own",
	"secret-config":            "the rules are part of the program; --ignorefile sets findings aside",
	"file-patterns":            "--skip-dirs and --skip-files leave files out; names of lock files are fixed",
	"download-db-only":         "gatehouse db update fetches the advisories",
	"download-java-db-only":    "there is no database of Java archives",
	"reset":                    "gatehouse scan --clear-cache forgets layers and images, gatehouse db update --force fetches advisories anew",
	"slow":                     "--parallel 1 reads one layer at a time",
	"distro":                   "the distribution is the one that the image names",
	"vuln-severity-source":     "a severity is the distribution's, then GitHub's, then NVD's; the JSON report has all of them",
	"max-image-size":           "--timeout bounds a scan; memory is bounded however large an image is",
	"license-confidence-level": "licences are read from packages, not guessed from texts",
	"list-all-packages":        "did you mean --list-all-pkgs?",
}

// trivyCommands says for commands of Trivy what has their place.
var trivyCommands = map[string]string{
	"server":     "gatehouse serve is a server; gatehouse scan --server URL matches by its advisories",
	"client":     "gatehouse scan --server URL matches by a server's advisories",
	"convert":    "scan again with another --format; what the layers hold is known by then",
	"clean":      "gatehouse scan --clear-cache forgets layers and images",
	"vm":         "mount it, and gatehouse rootfs DIR looks at it",
	"kubernetes": "gatehouse serve --admission-listen decides what a cluster may run",
	"k8s":        "gatehouse serve --admission-listen decides what a cluster may run",
	"plugin":     "there are no plugins",
	"module":     "there are no modules",
}
