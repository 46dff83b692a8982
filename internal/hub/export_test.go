package hub

// Held adds up what the windows of all streams hold, without the books that are
// kept of it.
func (h *Hub) Held() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := 0
	for _, st := range h.streams {
		if w := st.window.Load(); w != nil {
			for _, it := range w.items {
				sum += it.size()
			}
			sum += w.dropped
		}
	}
	return sum
}

// Tenants returns how many tenants the budget has books of.
func (h *Hub) Tenants() int {
	h.budget.mu.Lock()
	defer h.budget.mu.Unlock()
	return len(h.budget.tenants) + len(h.budget.most)
}
