package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/server"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
)

func (a *app) sigstoreInitCmd() *cobra.Command {
	var q asking
	var output string
	cmd := q.bind(&cobra.Command{
		Use:   "init",
		Short: "write what clients need to trust the private Sigstore of a server",
		Long: `Writes root.json, the beginning of all trust in a server's private Sigstore, and
says what to type on other machines. Get it over a connection that you trust, and
hand it to clients as you would hand them a certificate authority: everything else
they fetch by themselves, and they follow when keys are rotated.`,
		Example: `  gatehouse sigstore init --server https://registry.example
  gatehouse sigstore init --server https://registry.example -o root.json --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			var info server.SigstoreInfo
			if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/sigstore", nil, nil, &info); err != nil {
				return err
			}
			if !json.Valid([]byte(info.Root)) {
				return gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's root.json is not whole").WithHint("try again; the server's log may say why")
			}
			if err := writeWhole(output, []byte(info.Root)); err != nil {
				return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write %s: %w", output, err).WithHint("name another file with -o")
			}
			return a.show(q, info, func() error {
				a.done("%s is at version %d and trusts %s\n\nClients take it once:\n\n  cosign initialize --mirror %s --root %s\n\nThen, with an identity token of one of its issuers:\n\n  cosign sign IMAGE\n  cosign verify --certificate-identity NAME --certificate-oidc-issuer ISSUER IMAGE\n",
					output, info.Version, info.URL, info.Mirror, output)
				rows := []string{"ISSUER\tKIND\tAUDIENCE"}
				for _, i := range info.Issuers {
					rows = append(rows, i.URL+"\t"+i.Kind+"\t"+i.Audience)
				}
				if len(info.Issuers) == 0 {
					rows = []string{"No issuer is accepted: name some in the setting sigstore-issuers."}
				}
				return a.columns(rows...)
			})
		},
	})
	cmd.Flags().StringVarP(&output, "output", "o", "root.json", "file for the root")
	return cmd
}

// writeWhole writes a file whole or not at all.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".gatehouse-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (a *app) sigstoreRotateCmd() *cobra.Command {
	var q asking
	parts, all, atOnce := map[string]*bool{}, false, false
	cmd := q.bind(&cobra.Command{
		Use:   "rotate",
		Short: "put new keys of the private Sigstore in force; the old ones stay trusted for what they signed",
		Long: `Makes new keys and tells clients of them by the TUF repository. What the keys
before have signed stays valid: clients go on trusting them for the time in which
they were in force. Clients need nothing but to fetch, which stock ones do by
themselves, also after new root keys (--tuf). An administrator must ask.`,
		Example: `  gatehouse sigstore rotate --ca --tsa
  gatehouse sigstore rotate --ca --at-once
  gatehouse sigstore rotate --all --server https://registry.example`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			named := []string{}
			for part, on := range parts {
				if *on || all {
					named = append(named, part)
				}
			}
			if len(named) == 0 {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "nothing is named that should get new keys").WithHint("say --ca, --ct, --log, --tsa, --tuf or --all")
			}
			slices.Sort(named)
			c, err := a.asker(q)
			if err != nil {
				return err
			}
			body, err := json.Marshal(map[string]any{"parts": named, "atOnce": atOnce})
			if err != nil {
				return err
			}
			var info server.SigstoreInfo
			if err := c.do(cmd.Context(), http.MethodPost, "/api/v1/sigstore/rotate", nil, bytes.NewReader(body), &info); err != nil {
				return err
			}
			return a.show(q, info, func() error { return a.columns(keyRows(info)...) })
		},
	})
	for part := range keyring.Parts {
		parts[part] = cmd.Flags().Bool(part, false, map[string]string{
			"ca": "new keys of the certificate authority", "ct": "a new key of the certificate timestamps", "log": "a new key of the log, whose tree goes on",
			"tsa": "new keys of the timestamp authority", "tuf": "new keys of the TUF repository",
		}[part])
	}
	cmd.Flags().BoolVar(&atOnce, "at-once", false, "trust nothing that the keys before sign from now on: they were stolen")
	cmd.Flags().BoolVar(&all, "all", false, "new keys of everything")
	return cmd
}

func keyRows(info server.SigstoreInfo) []string {
	rows := []string{"KEY\tSHA-256\tFROM\tUNTIL"}
	for _, k := range info.Keys {
		until := "in force"
		if !k.Until.IsZero() {
			until = k.Until.UTC().Format(time.RFC3339)
		}
		rows = append(rows, fmt.Sprintf("%s\t%.16s\t%s\t%s", k.Kind, k.SHA256, k.From.UTC().Format(time.RFC3339), until))
	}
	return rows
}
