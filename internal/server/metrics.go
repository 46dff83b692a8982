package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/hub"
)

// metrics is what a server counts. No label holds a routing key: their values
// are the tenants' own, and without bound.
type metrics struct {
	connections *prometheus.GaugeVec   // by rail
	opened      *prometheus.CounterVec // by rail
	closed      *prometheus.CounterVec // by rail, code ("" for a peer that left)
	subs        prometheus.Gauge
	published   *prometheus.CounterVec // by channel
	duplicates  prometheus.Counter
	delivered   *prometheus.CounterVec // by rail
	bytesSent   prometheus.Counter
	resumes     *prometheus.CounterVec // by code ("" for done)
	resets      *prometheus.CounterVec // by reason
	errors      *prometheus.CounterVec // by code
	limited     *prometheus.CounterVec // by limit
	foreign     prometheus.Counter
	append      prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: "twinrail", Name: name, Help: help}, labels)
	}
	plain := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "twinrail", Name: name, Help: help})
	}
	return &metrics{
		connections: f.NewGaugeVec(prometheus.GaugeOpts{Namespace: "twinrail", Name: "connections", Help: "Connections open now."}, []string{"rail"}),
		opened:      counter("connections_opened_total", "Connections accepted.", "rail"),
		closed:      counter("connections_closed_total", "Connections ended, by the code that the server gave; none where the peer left.", "rail", "code"),
		subs:        f.NewGauge(prometheus.GaugeOpts{Namespace: "twinrail", Name: "subscriptions", Help: "Subscriptions open now."}),
		published:   counter("events_published_total", "Events stored.", "channel"),
		duplicates:  plain("events_duplicate_total", "Published events that the stream had seen before."),
		delivered:   counter("events_delivered_total", "Events written to subscribers.", "rail"),
		bytesSent:   plain("sent_bytes_total", "Bytes written to connections of either rail over HTTP/1.1."),
		resumes:     counter("resumes_total", "Sessions of the WS rail that were to be resumed, by the code of the refusal; none where it was done.", "code"),
		resets:      counter("resets_total", "Subscribers told that events between their cursor and the head cannot be delivered.", "reason"),
		errors:      counter("errors_total", "Errors answered, on either rail.", "code"),
		limited:     counter("limited_total", "Refusals for a limit that a tenant, an actor or a connection was over.", "limit"),
		foreign:     plain("isolation_violations_total", "Entries of another stream stopped right before delivery. Anything but 0 is an incident."),
		append: f.NewHistogram(prometheus.HistogramOpts{Namespace: "twinrail", Name: "append_seconds",
			Help: "Time until a publish is durable.", Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12)}),
	}
}

// observePause has the metrics show the pause of tenants that are slowed.
func observePause(r prometheus.Registerer, p *pacer) {
	promauto.With(r).NewGaugeFunc(prometheus.GaugeOpts{Namespace: "twinrail", Name: "pause_seconds",
		Help: "Pause between two turns of a tenant that always has requests in line, beside others."},
		func() float64 { return time.Duration(p.pause.Load()).Seconds() })
}

// observeHub has the metrics show what h counts.
func observeHub(r prometheus.Registerer, h *hub.Hub) {
	f := promauto.With(r)
	f.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "twinrail", Name: "window_bytes",
		Help: "Bytes of recent events held encoded in memory."}, func() float64 { return float64(h.WindowBytes()) })
	f.NewCounterFunc(prometheus.CounterOpts{Namespace: "twinrail", Name: "window_evictions_total",
		Help: "Streams whose recent events were dropped from memory to keep to the budget."}, func() float64 { return float64(h.WindowEvictions()) })
	f.NewCounterFunc(prometheus.CounterOpts{Namespace: "twinrail", Name: "gestures_evicted_total",
		Help: "Gestures dropped before their time, of streams with too many at once."}, func() float64 { return float64(h.GesturesEvicted()) })
}

func (m *metrics) failed(code twinrail.Code) { m.errors.WithLabelValues(string(code)).Inc() }

func (m *metrics) resumed(err error) {
	code := twinrail.Code("")
	if err != nil {
		code = asError(err).Code
	}
	m.resumes.WithLabelValues(string(code)).Inc()
}
