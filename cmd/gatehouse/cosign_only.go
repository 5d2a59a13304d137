package main

import (
	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
)

// cosignOnly are commands of cosign that are not here, and what takes their place.
var cosignOnly = []struct{ name, instead string }{
	{"sign-blob", "images and what hangs on them are signed here; push the file as an artifact and sign that, or sign it with cosign"},
	{"verify-blob", "images and what hangs on them are verified here; verify the file with cosign, which reads the same keys"},
	{"attest-blob", "images and what hangs on them are attested here: `gatehouse attest`"},
	{"verify-blob-attestation", "images and what hangs on them are verified here: `gatehouse verify-attestation`"},
	{"clean", "delete what `gatehouse triangulate` and `gatehouse tree` show at the registry: `gatehouse tag delete`"},
	{"dockerfile", "verify each image with `gatehouse verify`; an admission policy verifies what runs"},
	{"manifest", "`gatehouse policy test --policy DIR -f MANIFEST` verifies every image of a manifest"},
	{"save", "copy the image with its signatures to a registry on the other side: `gatehouse copy SRC DST`"},
	{"load", "copy the image with its signatures to a registry on the other side: `gatehouse copy SRC DST`"},
	{"upload", "push artifacts with oras, regctl or skopeo"},
	{"generate", "`gatehouse sign --upload=false --legacy --output-payload FILE` writes what is signed"},
	{"env", "docs/signing.md lists the variables"},
	{"signing-config", "`gatehouse initialize` fetches one; --signing-config takes cosign's"},
	{"trusted-root", "`gatehouse initialize` fetches one; --ca-roots and the like take PEM files; --trusted-root takes cosign's"},
	{"piv-tool", "a hardware key is reached through a KMS plugin: --key SCHEME://…"},
	{"pkcs11-tool", "a token is reached through a KMS plugin: --key SCHEME://…"},
}

// cosignOnlyCmds answer those who type cosign's other commands out of habit.
func (a *app) cosignOnlyCmds() (all []*cobra.Command) {
	for _, c := range cosignOnly {
		all = append(all, &cobra.Command{
			Use: c.name, Short: "not here: " + c.instead, Hidden: true, DisableFlagParsing: true,
			Annotations: map[string]string{ownEnvironment: "none"},
			RunE: func(*cobra.Command, []string) error {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "%s of cosign is not here", c.name).WithHint("%s", c.instead)
			},
		})
	}
	return all
}
