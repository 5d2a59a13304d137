package keyref

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/encoding"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// programPrefix is what a plugin's name begins with.
const programPrefix = "sigstore-kms-"

// Bounds on what a plugin says.
const (
	answerSizeMax  = 1 << 20 // bytes on standard output
	messageTextMax = 500     // bytes of its words that go into an error
	pipesAfterExit = 5 * time.Second
)

// plugin is one key of a key service. Each call runs the program once, as
// Sigstore's protocol has it: the arguments in JSON as the second argument of the
// command line, what is to be signed on standard input, the answer on standard
// output. The client of the protocol's own library trusts the program to answer
// what it was asked, without end or bound; this one does not.
type plugin struct {
	ref     string
	program string
	hash    crypto.Hash
	stderr  io.Writer
}

// findPlugin looks the program up. Errors: CodeInvalid (there is none).
func findPlugin(ref string, o Options) (*plugin, error) {
	scheme, _, _ := strings.Cut(ref, "://")
	if !o.Local && !slices.Contains(o.Services, scheme) {
		return nil, notLocal(ref)
	}
	path, err := exec.LookPath(programPrefix + scheme)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: %s is reached through the program %s%s, which is not on PATH", clip(ref), scheme, programPrefix, scheme).
			WithHint("install Sigstore's KMS plugin for it (docs/keys.md), or give a file, env://NAME or k8s://NAMESPACE/SECRET")
	}
	return &plugin{ref: ref, program: path, hash: crypto.SHA256, stderr: o.Stderr}, nil
}

func pluginSigner(ctx context.Context, ref string, o Options) (*sign.Key, error) {
	p, err := findPlugin(ref, o)
	if err != nil {
		return nil, err
	}
	_, public, err := p.public(ctx)
	if err != nil {
		return nil, err
	}
	hash, err := sign.HashFor(public)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: %w", clip(ref), err)
	}
	if hash != 0 { // the protocol has no word for "whole messages"; such keys know it
		p.hash = hash
	}
	return sign.NewRemoteKey(public, p.sign)
}

func pluginPublic(ctx context.Context, ref string, o Options) ([]byte, error) {
	p, err := findPlugin(ref, o)
	if err != nil {
		return nil, err
	}
	text, _, err := p.public(ctx)
	return text, err
}

func pluginGenerate(ctx context.Context, ref, algorithm string, o Options) ([]byte, error) {
	p, err := findPlugin(ref, o)
	if err != nil {
		return nil, err
	}
	if algorithm == "" {
		a, err := p.call(ctx, nil, &common.MethodArgs{MethodName: common.DefaultAlgorithmMethodName, DefaultAlgorithm: &common.DefaultAlgorithmArgs{}})
		if err != nil {
			return nil, err
		}
		algorithm = a.DefaultAlgorithm.DefaultAlgorithm
	} else {
		a, err := p.call(ctx, nil, &common.MethodArgs{MethodName: common.SupportedAlgorithmsMethodName, SupportedAlgorithms: &common.SupportedAlgorithmsArgs{}})
		if err != nil {
			return nil, err
		}
		if known := a.SupportedAlgorithms.SupportedAlgorithms; !slices.Contains(known, algorithm) {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key %s: the service does not know the algorithm %q", clip(ref), clip(algorithm)).
				WithHint("it knows %s", clip(strings.Join(known, ", ")))
		}
	}
	create := &common.CreateKeyArgs{Algorithm: algorithm}
	if deadline, ok := ctx.Deadline(); ok {
		create.CtxDeadline = &deadline
	}
	a, err := p.call(ctx, nil, &common.MethodArgs{MethodName: common.CreateKeyMethodName, CreateKey: create})
	if err != nil {
		return nil, err
	}
	text, _, err := publicPEM(ref, a.CreateKey.PublicKeyPEM)
	return text, err
}

func (p *plugin) public(ctx context.Context) ([]byte, crypto.PublicKey, error) {
	a, err := p.call(ctx, nil, &common.MethodArgs{
		MethodName: common.PublicKeyMethodName,
		PublicKey:  &common.PublicKeyArgs{PublicKeyOptions: encoding.PackPublicKeyOptions(nil)},
	})
	if err != nil {
		return nil, nil, err
	}
	return publicPEM(p.ref, a.PublicKey.PublicKeyPEM)
}

func (p *plugin) sign(ctx context.Context, message []byte) ([]byte, error) {
	a, err := p.call(ctx, message, &common.MethodArgs{
		MethodName:  common.SignMessageMethodName,
		SignMessage: &common.SignMessageArgs{SignOptions: encoding.PackSignOptions(nil)},
	})
	if err != nil {
		return nil, err
	}
	return a.SignMessage.Signature, nil
}

// call runs the program. Errors: CodeUnavailable; what the program says is in
// the text.
func (p *plugin) call(ctx context.Context, stdin []byte, method *common.MethodArgs) (*common.PluginResp, error) {
	_, key, _ := strings.Cut(p.ref, "://") // the plugin knows its own scheme, and is not told
	start := &common.InitOptions{
		ProtocolVersion: common.ProtocolVersion, KeyResourceID: key, HashFunc: p.hash,
		RPCOptions: encoding.PackRPCOptions([]signature.RPCOption{}),
	}
	if deadline, ok := ctx.Deadline(); ok {
		start.CtxDeadline = &deadline
	}
	args, err := json.Marshal(common.PluginArgs{InitOptions: start, MethodArgs: method})
	if err != nil {
		return nil, err
	}
	out, complaint := &head{max: answerSizeMax}, &head{max: messageTextMax}
	cmd := exec.CommandContext(ctx, p.program, common.ProtocolVersion, string(args))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), out, complaint
	if p.stderr != nil {
		cmd.Stderr = io.MultiWriter(p.stderr, complaint)
	}
	cmd.WaitDelay = pipesAfterExit // a grandchild may hold the pipes
	ran := cmd.Run()
	if err := ctx.Err(); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "key %s: the program %s did not answer in time: %w", clip(p.ref), p.program, err)
	}
	// The exit code means nothing where there is an answer.
	var exit *exec.ExitError
	if ran != nil && !errors.As(ran, &exit) {
		return nil, p.failed(ran.Error(), complaint)
	}
	a, err := readAnswer(out, method.MethodName)
	if err == nil {
		return a, nil
	}
	text := err.Error()
	if exit != nil {
		text += ", " + exit.Error()
	}
	return nil, p.failed(text, complaint)
}

func (p *plugin) failed(text string, complaint *head) error {
	text = clip(text)
	if c := clip(complaint.String()); c != "" {
		text += " (" + c + ")"
	}
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "key %s: %s: %s", clip(p.ref), p.program, text)
}

// readAnswer parses what a plugin wrote and checks that it answers method.
func readAnswer(out *head, method string) (*common.PluginResp, error) {
	if out.cut {
		return nil, errors.New("it wrote more than any answer has")
	}
	var a common.PluginResp
	if err := json.Unmarshal(out.b.Bytes(), &a); err != nil {
		return nil, errors.New("what it wrote is not an answer of the KMS plugin protocol")
	}
	if a.ErrorMessage != "" {
		return nil, errors.New(a.ErrorMessage)
	}
	answered := map[string]bool{
		common.DefaultAlgorithmMethodName:    a.DefaultAlgorithm != nil && a.DefaultAlgorithm.DefaultAlgorithm != "",
		common.SupportedAlgorithmsMethodName: a.SupportedAlgorithms != nil,
		common.CreateKeyMethodName:           a.CreateKey != nil,
		common.PublicKeyMethodName:           a.PublicKey != nil,
		common.SignMessageMethodName:         a.SignMessage != nil && len(a.SignMessage.Signature) > 0,
	}
	if !answered[method] {
		return nil, errors.New("it answered something else than it was asked")
	}
	return &a, nil
}

// head keeps the first bytes that are written to it and drops the rest, so that
// the writer never blocks. The program's two outputs may be written at once.
type head struct {
	mu  sync.Mutex
	b   bytes.Buffer
	max int
	cut bool
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if room := h.max - h.b.Len(); len(p) > room {
		h.b.Write(p[:room])
		h.cut = true
	} else {
		h.b.Write(p)
	}
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.String()
}

// clip keeps foreign text in messages short and on one line.
func clip(s string) string { return gatehouse.Foreign(s, messageTextMax) }
