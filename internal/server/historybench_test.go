package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// nowhere is a response that is not kept.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

// BenchmarkHistoryPage compares what a page of 1000 events of 1 KB allocates with
// what the journal does for it.
func BenchmarkHistoryPage(b *testing.B) {
	j, err := disk.Open(b.TempDir(), disk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	issuer := authtest.New(b)
	s, err := New(Options{Journal: j, Gate: issuer.Gate(auth.GateOptions{})})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	stream := journaltest.NewStreamIn(b, "t_acme", "dev", "c1")
	recs := make([]journal.Record, maxHistoryLimit)
	for i := range recs {
		recs[i] = stream.Record(fmt.Sprint(i), `"`+strings.Repeat("x", 1<<10)+`"`)
	}
	if _, err := j.Append(b.Context(), recs, journal.Expect{}); err != nil {
		b.Fatal(err)
	}
	b.Run("journal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for after, more := uint64(0), true; more; {
				page, err := j.Read(context.Background(), stream.Reader, after, historyChunk)
				if err != nil {
					b.Fatal(err)
				}
				after, more = page.Entries[len(page.Entries)-1].Cursor.Seq, page.More
			}
		}
	})
	b.Run("page", func(b *testing.B) {
		r, err := http.NewRequest("GET", "http://twinrail.test"+historyPath+"&limit=1000", nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+issuer.Token())
		b.ReportAllocs()
		for b.Loop() {
			if err := s.serveHistory(nowhere{make(http.Header)}, r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
