package contenttest

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
)

// big is larger than what any registry keeps beside its rows.
var big = strings.Repeat("a large blob that lies in storage. ", 10_000)

var uploadTests = []test{
	{"a small blob", func(s *Suite) { s.WantBlob("a/b", s.PushBlob("a/b", "small"), "small") }},
	{"a large blob", func(s *Suite) { s.WantBlob("a/b", s.PushBlob("a/b", big), big) }},
	{"the empty blob", func(s *Suite) { s.WantBlob("a/b", s.PushBlob("a/b", ""), "") }},
	{"the empty blob without any append", func(s *Suite) {
		d, err := s.Start("a/b", "").Commit(s.Context(), gatehouse.DigestOf(nil))
		s.must(err)
		s.WantBlob("a/b", d, "")
	}},
	{"the same blob twice", func(s *Suite) {
		for _, text := range []string{"small", big} {
			s.PushBlob("a/b", text)
			d := s.PushBlob("a/b", text)
			s.WantBlob("a/b", d, text)
		}
	}},
	{"in chunks, each in a session of its own", uploadChunks},
	{"sha512, announced or not", uploadSHA512},
	{"a wrong digest ends the session and stores nothing", uploadWrongDigest},
	{"a malformed digest or algorithm", uploadMalformed},
	{"an offset that is not the current one", uploadOffset},
	{"what came before the reader failed is kept", uploadCutOff},
	{"two appenders exclude each other", uploadExclusive},
	{"cancel", uploadCancel},
	{"a session belongs to its repository", func(s *Suite) {
		u := s.Start("a/b", "")
		_, err := s.C.ResumeUpload(s.Context(), Pusher, "a/c", u.ID())
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
		_, err = s.C.ResumeUpload(s.Context(), Pusher, "a/b", "no-such-session")
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
	}},
	{"a blob of another repository is unknown", func(s *Suite) {
		d := s.PushBlob("a/b", "secret")
		_, err := s.C.StatBlob(s.Context(), "a/c", d.Digest)
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
		_, err = s.C.OpenBlob(s.Context(), "a/c", d.Digest)
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
	}},
	{"mount", uploadMount},
	{"the same blob by many at once", uploadParallel},
}

func uploadChunks(s *Suite) {
	// Small chunks that grow over the line between row and storage, then on.
	text := strings.Repeat("0123456789abcdef", 16<<10)
	id := s.Start("a/b", "").ID()
	for at := 0; at < len(text); {
		end := min(at+20_011, len(text))
		u := s.Resume("a/b", id)
		if u.Offset() != int64(at) {
			s.Fatalf("offset is %d, want %d", u.Offset(), at)
		}
		n, err := u.Append(s.Context(), int64(at), strings.NewReader(text[at:end]))
		s.must(err)
		if n != int64(end) {
			s.Fatalf("Append returned %d, want %d", n, end)
		}
		at = end
	}
	d, err := s.Resume("a/b", id).Commit(s.Context(), gatehouse.DigestOf([]byte(text)))
	s.must(err)
	s.WantBlob("a/b", d, text)
	_, err = s.C.ResumeUpload(s.Context(), Pusher, "a/b", id)
	s.WantError(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
}

func sha512Of(text string) gatehouse.Digest {
	sum := sha512.Sum512([]byte(text))
	return gatehouse.NewDigest(gatehouse.SHA512, sum[:])
}

func uploadSHA512(s *Suite) {
	for _, announced := range []string{"", gatehouse.SHA512} {
		for _, text := range []string{"small" + announced, big + announced} {
			u := s.Start("a/b", announced)
			_, err := u.Append(s.Context(), -1, strings.NewReader(text))
			s.must(err)
			d, err := u.Commit(s.Context(), sha512Of(text))
			s.must(err)
			s.WantBlob("a/b", d, text)
		}
	}
	// And the other way round.
	u := s.Start("a/b", gatehouse.SHA512)
	_, err := u.Append(s.Context(), -1, strings.NewReader(big))
	s.must(err)
	d, err := u.Commit(s.Context(), gatehouse.DigestOf([]byte(big)))
	s.must(err)
	s.WantBlob("a/b", d, big)
}

func uploadWrongDigest(s *Suite) {
	for _, text := range []string{"small", big} {
		for _, wrong := range []gatehouse.Digest{gatehouse.DigestOf([]byte("other")), sha512Of("other")} {
			u := s.Start("a/b", "")
			_, err := u.Append(s.Context(), 0, strings.NewReader(text))
			s.must(err)
			_, err = u.Commit(s.Context(), wrong)
			s.WantError(err, gatehouse.CodeInvalid, "DIGEST_INVALID")
			_, err = s.C.ResumeUpload(s.Context(), Pusher, "a/b", u.ID())
			s.WantError(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
			for _, d := range []gatehouse.Digest{wrong, gatehouse.DigestOf([]byte(text))} {
				_, err = s.C.StatBlob(s.Context(), "a/b", d)
				s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
			}
		}
	}
	repos, err := s.C.Repos(s.Context(), "", 10)
	s.must(err)
	if len(repos) != 0 {
		s.Errorf("failed uploads left repositories: %v", repos)
	}
}

func uploadMalformed(s *Suite) {
	_, err := s.C.StartUpload(s.Context(), Pusher, "a/b", "md5")
	s.WantError(err, gatehouse.CodeInvalid, "DIGEST_INVALID")
	_, err = s.C.StartUpload(s.Context(), Pusher, "A//b", "")
	s.WantError(err, gatehouse.CodeInvalid, "NAME_INVALID")
	u := s.Start("a/b", "")
	_, err = u.Append(s.Context(), 0, strings.NewReader("x"))
	s.must(err)
	for _, d := range []gatehouse.Digest{"", "sha256:", "sha256:zz", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		_, err = u.Commit(s.Context(), d)
		s.WantError(err, gatehouse.CodeInvalid, "DIGEST_INVALID")
		_, err = s.C.StatBlob(s.Context(), "a/b", d)
		s.WantError(err, gatehouse.CodeInvalid, "DIGEST_INVALID")
	}
	// A malformed digest proves nothing about the bytes: the session goes on.
	_, err = u.Commit(s.Context(), gatehouse.DigestOf([]byte("x")))
	s.must(err)
}

func uploadOffset(s *Suite) {
	for _, text := range []string{"small", big} {
		u := s.Start("a/b", "")
		_, err := u.Append(s.Context(), 1, strings.NewReader(text))
		s.WantError(err, gatehouse.CodeConflict, "RANGE_INVALID")
		n, err := u.Append(s.Context(), 0, strings.NewReader(text))
		s.must(err)
		for _, at := range []int64{0, n - 1, n + 1} {
			got, err := u.Append(s.Context(), at, strings.NewReader("more"))
			s.WantError(err, gatehouse.CodeConflict, "RANGE_INVALID")
			if got != n || u.Offset() != n {
				s.Fatalf("after a refused append the offset is %d and %d, want %d", got, u.Offset(), n)
			}
		}
		// A session that has seen less than what is there is told so as well.
		stale := s.Resume("a/b", u.ID())
		_, err = u.Append(s.Context(), n, strings.NewReader("more"))
		s.must(err)
		_, err = stale.Append(s.Context(), n, strings.NewReader("evil"))
		s.WantError(err, gatehouse.CodeConflict, "RANGE_INVALID")
		d, err := u.Commit(s.Context(), gatehouse.DigestOf([]byte(text+"more")))
		s.must(err)
		s.WantBlob("a/b", d, text+"more")
	}
}

// errCutOff is what net/http says of a body whose client went away.
var errCutOff = io.ErrUnexpectedEOF

// cutOff yields text and then fails.
func cutOff(text string) io.Reader {
	return io.MultiReader(strings.NewReader(text), failing{})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCutOff }

func uploadCutOff(s *Suite) {
	for _, text := range []string{"small", big} {
		u := s.Start("a/b", "")
		for _, part := range []string{text, "tail"} {
			before := u.Offset()
			n, err := u.Append(s.Context(), before, cutOff(part))
			if !errors.Is(err, errCutOff) {
				s.Fatalf("Append = %v, want the reader's error", err)
			}
			if want := before + int64(len(part)); n != want || u.Offset() != want {
				s.Fatalf("offset is %d and %d after a cut, want %d", n, u.Offset(), want)
			}
			u = s.Resume("a/b", u.ID())
		}
		_, err := u.Append(s.Context(), int64(len(text)+4), strings.NewReader("!"))
		s.must(err)
		d, err := u.Commit(s.Context(), gatehouse.DigestOf([]byte(text+"tail!")))
		s.must(err)
		s.WantBlob("a/b", d, text+"tail!")
	}
}

func uploadExclusive(s *Suite) {
	first := s.Start("a/b", "")
	second := s.Resume("a/b", first.ID())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := first.Append(s.Context(), 0, r)
		ended <- err
	}()
	// Once this has been taken the first appender is behind its first read from
	// storage's point of view: it holds the session.
	if _, err := io.WriteString(w, big); err != nil {
		s.Fatal(err)
	}
	_, err := second.Append(s.Context(), 0, strings.NewReader(big))
	if gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		s.Fatalf("a second appender got in: %v", err)
	}
	_, err = second.Append(s.Context(), 0, strings.NewReader("small"))
	if gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		s.Fatalf("a second, small appender got in: %v", err)
	}
	_, err = second.Commit(s.Context(), gatehouse.DigestOf(nil))
	if gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		s.Fatalf("a second committer got in: %v", err)
	}
	w.Close()
	s.must(<-ended)
	d, err := s.Resume("a/b", first.ID()).Commit(s.Context(), gatehouse.DigestOf([]byte(big)))
	s.must(err)
	s.WantBlob("a/b", d, big)
}

func uploadCancel(s *Suite) {
	for _, text := range []string{"", "small", big} {
		u := s.Start("a/b", "")
		_, err := u.Append(s.Context(), 0, strings.NewReader(text))
		s.must(err)
		other := s.Resume("a/b", u.ID())
		s.must(u.Cancel(s.Context()))
		s.WantError(u.Cancel(s.Context()), gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
		_, err = other.Append(s.Context(), -1, strings.NewReader("more"))
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
		_, err = other.Commit(s.Context(), gatehouse.DigestOf([]byte(text)))
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
		_, err = s.C.ResumeUpload(s.Context(), Pusher, "a/b", u.ID())
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
	}
}

func uploadMount(s *Suite) {
	for _, text := range []string{"small", big} {
		d := s.PushBlob("from", text)
		got, err := s.C.MountBlob(s.Context(), Pusher, "to", "from", d.Digest)
		s.must(err)
		if got.Digest != d.Digest || got.Size != d.Size {
			s.Errorf("mounted %+v, want %+v", got, d)
		}
		s.WantBlob("to", d, text)
		_, err = s.C.MountBlob(s.Context(), Pusher, "to", "nowhere", d.Digest)
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
		_, err = s.C.MountBlob(s.Context(), Pusher, "third", "from", gatehouse.DigestOf([]byte("never")))
		s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
	}
	repos, err := s.C.Repos(s.Context(), "", 10)
	s.must(err)
	if len(repos) != 2 {
		s.Errorf("repositories: %v, want from and to", repos)
	}
}

func uploadParallel(s *Suite) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for _, text := range []string{"small", big} {
				u, err := s.C.StartUpload(s.Context(), Pusher, gatehouse.Repo(fmt.Sprintf("repo%d", i%3)), "")
				if err == nil {
					_, err = u.Append(s.Context(), 0, strings.NewReader(text))
				}
				if err == nil {
					_, err = u.Commit(s.Context(), gatehouse.DigestOf([]byte(text)))
				}
				if err != nil {
					s.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range 3 {
		for _, text := range []string{"small", big} {
			s.WantBlob(gatehouse.Repo(fmt.Sprintf("repo%d", i)), Describe("", text), text)
		}
	}
}
