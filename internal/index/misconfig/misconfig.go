// Package misconfig knows what is wrong with an image that is in no package:
// with its configuration and history, and with the modes, names and a few
// contents of its files. Values go in, findings come out; it reads nothing
// itself. docs/misconfig.md says the same to people, and a test compares.
package misconfig

import (
	"github.com/gatehouse-dev/gatehouse"
)

// Version changes when a check would give another answer for equal values.
const Version = 1

// Check is one thing that may be wrong.
type Check struct {
	ID       string // "GHM001"
	Severity gatehouse.Severity
	Title    string
	Why      string // why it matters
	Fix      string // what to do
}

const (
	critical = gatehouse.SeverityCritical
	high     = gatehouse.SeverityHigh
	medium   = gatehouse.SeverityMedium
	low      = gatehouse.SeverityLow
)

// What is wrong with the configuration and the history: 001 to 099.
var (
	runsAsRoot     = Check{"GHM001", high, "The image runs as root", "Whoever breaks into the process is root in the container, and one flaw of the kernel or the runtime away from root on the node.", "Add a USER with a number other than 0 as the last user of the Dockerfile."}
	noHealthcheck  = Check{"GHM002", low, "There is no HEALTHCHECK", "Docker and Swarm do not notice that the process hangs. Kubernetes ignores it and has probes of its own.", "Add a HEALTHCHECK, or set probes in the pod and ignore this."}
	secretInEnv    = Check{"GHM003", high, "A variable of the environment holds a secret", "Everybody who can pull the image or look at the running container reads it, and every process in it inherits it.", "Remove the ENV and revoke the secret. Hand it in when the container runs, from a Secret or a vault."}
	secretInStep   = Check{"GHM004", high, "The history holds a secret", "Build arguments and commands are stored in the image and shown by docker history.", "Revoke the secret and use RUN --mount=type=secret, which leaves no trace."}
	addRemote      = Check{"GHM005", medium, "ADD fetches a file from the network", "What is fetched is not pinned: the next build may bring something else, and nobody checks it.", "Name the content with ADD --checksum=sha256:…, or fetch and verify it in a RUN step."}
	addLocal       = Check{"GHM006", low, "ADD where COPY would do", "ADD unpacks archives and fetches addresses, which surprises whoever changes the source later.", "Use COPY for files of the build context."}
	exposesSSH     = Check{"GHM007", medium, "Port 22 is exposed", "A remote shell is a second way into the container, past the cluster's access control and audit log.", "Remove the SSH server; use kubectl exec or docker exec."}
	exposesDocker  = Check{"GHM008", high, "The port of a container daemon is exposed", "Who reaches port 2375 or 2376 of a Docker daemon is root on its machine.", "Do not run a daemon in the image, or protect it with mutual TLS and do not expose it."}
	baseLatest     = Check{"GHM009", medium, "The base image is not pinned to a version", "latest is another image tomorrow; nobody can tell what this one was built from.", "Name a version in FROM, at best with its digest."}
	updateAlone    = Check{"GHM010", low, "Package lists are updated in a step of their own", "The step is cached: later builds install old versions from old lists, without the fixes since.", "Update and install in one RUN step."}
	usesSudo       = Check{"GHM011", medium, "A step uses sudo", "It has no use in a build, keeps root within reach in the container, and handles terminals and signals in its own way.", "Run the step as root before USER, or change the user with setpriv or gosu."}
	chmodAll       = Check{"GHM012", medium, "A step gives everybody write permission", "Any process in the container can replace programs and settings.", "Give the owner or the group what it needs (chown, chmod 750)."}
	shellForm      = Check{"GHM013", low, "The command is in shell form", "The shell is process 1 and does not pass signals on: the container is killed instead of stopped.", `Write it as a list: ENTRYPOINT ["program", "argument"].`}
	pipesToShell   = Check{"GHM014", medium, "A step pipes a download into a shell", "Whoever controls the address, or the way to it, runs commands in the build, and nothing records what ran.", "Download to a file, compare its digest, then run it."}
	verifiesNot    = Check{"GHM015", high, "Verification of downloads or certificates is turned off", "Whoever is on the way can replace what is downloaded, in the build or in the running container.", "Add the missing certificate or key instead of turning verification off."}
	mountsDocker   = Check{"GHM016", high, "The image asks for the socket of the container daemon", "Who has the socket is root on the node.", "Build and inspect images with a tool that needs no daemon."}
	runsPrivileged = Check{"GHM017", low, "A step runs in an unconfined sandbox", "RUN --security=insecure gives the build all privileges of the builder.", "Remove the flag, or do the step outside of the build."}
)

// What is wrong with files: 101 to 199.
var (
	setuidFile     = Check{"GHM101", high, "A program runs with the rights of its owner or group (setuid, setgid)", "Any process in the container can use it to gain rights; one flaw in it is enough.", "Remove the bit (chmod a-s), or the program, and set allowPrivilegeEscalation: false."}
	writableFile   = Check{"GHM102", medium, "A file can be written by everybody", "Any process in the container can change what others run or read.", "Take the permission away (chmod o-w)."}
	writableDir    = Check{"GHM103", medium, "A directory without the sticky bit can be written by everybody", "Any process can replace the files of others in it.", "Take the permission away (chmod o-w), or set the sticky bit (chmod +t)."}
	secondRoot     = Check{"GHM104", high, "An account besides root has user id 0", "It is root under another name, which looks harmless in lists and policies.", "Give it an id of its own or remove it."}
	noPassword     = Check{"GHM105", high, "An account has no password", "su, SSH and whatever else asks PAM lets everybody in.", "Lock the account (passwd -l)."}
	hasPassword    = Check{"GHM106", medium, "An account has a password that is part of the image", "All containers have the same one, and whoever has the image can try it offline.", "Lock the account (passwd -l); set a password when the container runs if one is needed."}
	sshDaemon      = Check{"GHM107", medium, "The image holds a remote login daemon", "A remote shell is a second way into the container, past the cluster's access control and audit log.", "Remove it; use kubectl exec or docker exec."}
	dockerSocket   = Check{"GHM108", high, "The image holds a path of the container daemon's socket", "It is there to be mounted, and who has the socket is root on the node.", "Build and inspect images with a tool that needs no daemon."}
	gitDirectory   = Check{"GHM109", medium, "The image holds a Git repository", "Its history has everything that was ever committed, secrets that were removed later included.", "Add .git to .dockerignore, or copy only what runs."}
	kubeconfig     = Check{"GHM110", high, "The image holds a login of a Kubernetes cluster", "Everybody who can pull the image can use it.", "Remove it and rotate the credential; in a cluster use a service account."}
	credentialFile = Check{"GHM111", medium, "The image holds a file where tools keep logins", "Everybody who can pull the image has them.", "Remove it and revoke what it holds; use RUN --mount=type=secret in the build."}
	packageCache   = Check{"GHM112", low, "The image holds a cache of a package manager", "It makes the image larger and is of no use in it.", "Remove the cache in the step that fills it, or use RUN --mount=type=cache."}
	shellHistory   = Check{"GHM113", low, "The image holds the history of a shell", "Commands hold host names and passwords, and say that the image was made by hand.", "Build the image from a Dockerfile and remove the file."}
	envFile        = Check{"GHM114", low, "The image holds an .env file", "It is where applications keep passwords; everybody who can pull the image reads it.", "Add .env to .dockerignore and set variables when the container runs."}
	deviceNode     = Check{"GHM115", medium, "A device node stands outside of /dev", "A privileged container reaches the node's disk or memory through it.", "Remove it; the runtime makes the devices that a container needs."}
	capableFile    = Check{"GHM116", medium, "A program has capabilities of its own", "Any process in the container gains them by running it.", "Remove them (setcap -r) and grant capabilities in the pod."}
	sudoNoPassword = Check{"GHM117", medium, "sudo asks for no password", "Every process of the account is as good as root.", "Remove sudo, or allow single commands only."}
	sshdSettings   = Check{"GHM118", medium, "The SSH server lets root or empty passwords in", "A guessed password, or none, is root in the container.", "Set PermitRootLogin no and PermitEmptyPasswords no, or remove the SSH server."}
)

// Checks lists all checks by ID.
func Checks() []Check {
	return []Check{
		runsAsRoot, noHealthcheck, secretInEnv, secretInStep, addRemote, addLocal, exposesSSH, exposesDocker, baseLatest, updateAlone,
		usesSudo, chmodAll, shellForm, pipesToShell, verifiesNot, mountsDocker, runsPrivileged,
		setuidFile, writableFile, writableDir, secondRoot, noPassword, hasPassword, sshDaemon, dockerSocket, gitDirectory, kubeconfig,
		credentialFile, packageCache, shellHistory, envFile, deviceNode, capableFile, sudoNoPassword, sshdSettings,
	}
}

// at makes a finding of c at a place.
func (c Check) at(l gatehouse.Location) gatehouse.Finding {
	return gatehouse.Finding{
		ID: c.ID, Kind: gatehouse.KindMisconfig, Severity: c.Severity, SeveritySource: "gatehouse", Status: gatehouse.StatusAffected,
		Title: c.Title, Description: c.Why, Resolution: c.Fix, Location: &l,
		Aliases: []string{}, CVSS: []gatehouse.CVSS{}, References: []string{},
	}
}

// rated returns c with another severity.
func (c Check) rated(s gatehouse.Severity) Check { c.Severity = s; return c }

// file makes a finding of c in a file; excerpt says what of it.
func (c Check) file(excerpt string) gatehouse.Finding {
	return c.at(gatehouse.Location{Origin: "file", Excerpt: excerpt})
}
