package server

import (
	"net/http"
	"testing"
)

// TestNothingIsSniffed: what clients wrote is in answers as they wrote it, so nothing
// may take an answer for what it does not say it is.
func TestNothingIsSniffed(t *testing.T) {
	r := newRig(t)
	r.publish(`{"channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":"<script>"}`)
	for path, status := range map[string]int{
		historyPath: http.StatusOK, presencePath + "&thread_id=th1": http.StatusOK, presencePath: http.StatusBadRequest, "/<script>": http.StatusNotFound,
	} {
		resp := r.get(path)
		if resp.status != status || resp.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d, %v", path, resp.status, resp.header)
		}
	}
	if h := r.tail(canvasPath).resp.Header; h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("a stream: %v", h)
	}
}
