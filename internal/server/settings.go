package server

import (
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/index/licence"
)

// CheckScanner reads what the settings of the scanner name, as a server does, and
// contacts nobody. Errors: CodeInvalid.
func CheckScanner(cfg config.Config) error {
	if _, _, err := licencesOf(cfg); err != nil {
		return err
	}
	if _, err := loginsOf(cfg); err != nil {
		return err
	}
	if cfg.ScannerAdapter {
		if _, err := cfg.AdapterToken(); err != nil {
			return err
		}
	}
	if _, err := cfg.OpinionToken(); err != nil {
		return err
	}
	names, err := malwareListNames(cfg)
	if err != nil {
		return err
	}
	for _, path := range names {
		if _, err := readMalwareList(path); err != nil {
			return err
		}
	}
	return nil
}

// licencesOf is how the settings judge licences, and what may be mistyped in them.
func licencesOf(cfg config.Config) (licence.Policy, string, error) {
	policy, strange, err := licence.Settings{
		Forbidden: cfg.LicenseForbidden, Restricted: cfg.LicenseRestricted, Reciprocal: cfg.LicenseReciprocal,
		Notice: cfg.LicenseNotice, Permissive: cfg.LicensePermissive, Unencumbered: cfg.LicenseUnencumbered, Ignored: cfg.IgnoredLicenses,
	}.Policy()
	if err != nil {
		return policy, "", gatehouse.Errorf(gatehouse.CodeOf(err), "license settings: %w", err).WithHint("%s", gatehouse.HintOf(err))
	}
	return policy, licence.Strange(strange), nil
}

// loginsOf are the logins for other registries; nil: none.
func loginsOf(cfg config.Config) (fetch.Credentials, error) {
	if cfg.RegistryLoginFile == "" {
		return nil, nil
	}
	logins, err := fetch.LoginFile(cfg.RegistryLoginFile)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "registry-login-file: %w", err)
	}
	return logins, nil
}

// malwareListNames are the lists of the settings, by the names that they get.
func malwareListNames(cfg config.Config) (map[string]string, error) {
	paths := map[string]string{}
	for _, path := range cfg.MalwareLists {
		name := filepath.Base(path)
		if other, taken := paths[name]; taken && other != path {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "malware-lists: %s and %s have the same file name, which is the name of a list", other, path).
				WithHint("rename one of them")
		}
		paths[name] = path
	}
	return paths, nil
}
