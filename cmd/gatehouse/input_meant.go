package main

import (
	"errors"
	"os"

	"github.com/gatehouse-dev/gatehouse"
)

// orFile adds to the error of an image that is not found what helps where a file
// or directory has its name: it was probably meant.
func orFile(err error, name string) error {
	if err == nil {
		return nil
	}
	info, statErr := os.Stat(name)
	switch {
	case statErr != nil:
		return err
	case info.IsDir():
		return gatehouse.Errorf(gatehouse.CodeOf(err), "%w", err).
			WithHint("there is a directory of that name: gatehouse rootfs looks at installed packages, gatehouse fs at sources, gatehouse scan --input at an OCI layout")
	}
	return gatehouse.Errorf(gatehouse.CodeOf(err), "%w", err).WithHint("there is a file of that name: gatehouse scan --input %s", name)
}

// noFileEither says of a name that was taken for an image because there is no such
// file that this is so. Who names a registry means an image.
func noFileEither(err error, name string) error {
	var known *gatehouse.Error
	if err == nil || !errors.As(err, &known) || known.Code != gatehouse.CodeUnavailable && known.Code != gatehouse.CodeNotFound && known.Code != gatehouse.CodeInvalid {
		return err
	}
	ref, refErr := gatehouse.ParseRef(name)
	if _, statErr := os.Stat(name); !os.IsNotExist(statErr) || refErr == nil && ref.Registry != "docker.io" {
		return err
	}
	return gatehouse.Errorf(known.Code, "%w", err).WithHint("%s is taken for an image, since there is no file of that name", name)
}
