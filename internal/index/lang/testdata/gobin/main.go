// Command gobin is a Go program with one dependency, to be read back.
package main

import (
	"fmt"

	"golang.org/x/tools/txtar"
)

func main() { fmt.Println(len(txtar.Parse(nil).Files)) }
