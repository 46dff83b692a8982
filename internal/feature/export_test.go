package feature

// Held returns how many views and turns s has in memory.
func (s *Store) Held() (views, turns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.views), len(s.turns)
}
