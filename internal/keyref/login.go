package keyref

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// login is a program that a kubeconfig names to log its user in, and that answers
// with an ExecCredential (client.authentication.k8s.io).
type login struct {
	Version string   `yaml:"apiVersion"`
	Command string   `yaml:"command"`
	Args    []string `yaml:"args"`
	Env     []struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	} `yaml:"env"`
	Interactive string `yaml:"interactiveMode"`
	InstallHint string `yaml:"installHint"`
}

// run starts the program and takes over what it answers. It gets no terminal.
func (l *login) run(ctx context.Context, dir string, c *Cluster, o Options) error {
	if l.Interactive == "Always" {
		return fmt.Errorf("the login program %s wants a terminal, which it does not get here", clip(l.Command))
	}
	path := l.Command
	if strings.ContainsRune(path, filepath.Separator) {
		path = inside(dir, path) // relative to the kubeconfig, as kubectl has it
	}
	info, err := json.Marshal(map[string]any{
		"apiVersion": l.Version, "kind": "ExecCredential", "spec": map[string]any{"interactive": false},
	})
	if err != nil {
		return err
	}
	out, complaint := &head{max: answerSizeMax}, &head{max: messageTextMax}
	cmd := exec.CommandContext(ctx, path, l.Args...)
	cmd.Env = append(os.Environ(), "KUBERNETES_EXEC_INFO="+string(info))
	for _, e := range l.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, complaint, pipesAfterExit
	if o.Stderr != nil {
		cmd.Stderr = io.MultiWriter(o.Stderr, complaint)
	}
	if err := cmd.Run(); err != nil {
		text := fmt.Sprintf("the login program %s: %v", clip(l.Command), err)
		for _, more := range []string{complaint.String(), l.InstallHint} {
			if more != "" {
				text += " (" + clip(more) + ")"
			}
		}
		return errors.New(text)
	}
	if err := c.takeOver(out); err != nil {
		return fmt.Errorf("the login program %s: %w", clip(l.Command), err)
	}
	return nil
}

// takeOver reads an ExecCredential.
func (c *Cluster) takeOver(out *head) error {
	var answer struct {
		Kind   string `json:"kind"`
		Status struct {
			Token string `json:"token"`
			Cert  string `json:"clientCertificateData"`
			Key   string `json:"clientKeyData"`
		} `json:"status"`
	}
	if out.cut || json.Unmarshal(bytes.TrimSpace(out.b.Bytes()), &answer) != nil || answer.Kind != "ExecCredential" {
		return errors.New("what it wrote is not an ExecCredential")
	}
	s := answer.Status
	if s.Token == "" && s.Cert == "" {
		return errors.New("it gave neither a token nor a certificate")
	}
	c.Token = s.Token
	if s.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(s.Cert), []byte(s.Key))
		if err != nil {
			return err
		}
		c.Certificate = &pair
	}
	return nil
}
