package server

import (
	"net/http"
	"strings"

	"github.com/twinrail/twinrail"
)

// cors says to browsers which pages may read the answer: those of exactly the
// allowed origins. It reports whether the request was a preflight, which it then
// has answered; that carries no credential, and reaches nothing.
func (s *Server) cors(w http.ResponseWriter, r *http.Request, m methods) (answered bool) {
	origin := r.Header.Get("Origin")
	if len(s.origins) > 0 {
		w.Header().Add("Vary", "Origin")
	}
	allowed := origin != "" && s.origins[origin]
	if allowed {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Allow-Credentials", "true") // cookies
		w.Header().Set("Access-Control-Expose-Headers", "X-Request-Id, Traceparent, Retry-After")
	}
	if r.Method != http.MethodOptions || origin == "" || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	if allowed && len(m) > 0 {
		w.Header().Set("Access-Control-Allow-Methods", m.names())
		w.Header().Set("Access-Control-Allow-Headers", allowedHeaders())
		w.Header().Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}

func allowedHeaders() string {
	names := []string{"Authorization", "Content-Type", "Last-Event-ID", "Traceparent", "X-Request-Id"}
	for _, k := range twinrail.Keys() {
		names = append(names, k.Header())
	}
	return strings.Join(names, ", ")
}
