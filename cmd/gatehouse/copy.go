package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// copyCmd is `gatehouse copy SRC DST`.
func (a *app) copyCmd() *cobra.Command {
	var o registryFlags
	var c fetch.CopyOptions
	var platform string
	var sigOnly bool
	cmd := &cobra.Command{
		Use:   "copy SRC DST",
		Short: "copy an image with its signatures and attestations",
		Long: `Copy copies an image, the images that it lists if it is an index, and all that
hangs on them: signatures, attestations and SBOMs under the tags of the tag scheme,
and what refers to them. Bytes that are there already are not sent again.

A tag of the destination that points elsewhere is kept and reported, unless --force
is given or nothing under it would be lost.`,
		Example: `  gatehouse copy registry.example/app:v1 mirror.example/app:v1
  gatehouse copy --only=sig,att registry.example/app@sha256:… mirror.example/app`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o, func(ctx context.Context) error {
				if sigOnly {
					c.Only = append(c.Only, "sig")
				}
				for _, kind := range c.Only {
					if !slices.Contains([]string{"sig", "att", "sbom"}, kind) {
						return gatehouse.Errorf(gatehouse.CodeInvalid, "--only %q is not known", kind).WithHint("use sig, att or sbom, or several with commas between them")
					}
				}
				var err error
				if platform != "" {
					if c.Platform, err = fetch.ParsePlatform(platform); err != nil {
						return err
					}
				}
				refs, err := a.images(args)
				if err != nil {
					return err
				}
				n, err := o.connect(cmd, a, refs)
				if err != nil {
					return err
				}
				from, to := refs[0], refs[1]
				c.OnCopied = func(d gatehouse.Digest, tag string) {
					if tag != "" {
						tag = " as " + tag
					}
					a.say("Copied %s to %s%s", d, to.Name(), tag)
				}
				return fetch.Copy(ctx, n.registries.Registry(from.Registry), from, n.registries.Registry(to.Registry), to, c)
			})
		},
	}
	o.bind(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&c.Only, "only", nil, "copy only these of what hangs on the image: sig, att, sbom")
	f.BoolVarP(&c.Force, "force", "f", false, "move tags of the destination that point elsewhere")
	f.StringVar(&platform, "platform", "", "copy the image of this platform only: OS/ARCH")
	f.BoolVar(&sigOnly, "sig-only", false, "cosign's older name of --only=sig")
	f.Lookup("sig-only").Hidden = true
	return cmd
}
