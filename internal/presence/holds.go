package presence

// Holds reports whether the session has the hold, whether or not its members are
// present at this moment.
func (s *Session) Holds(hold string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(hold) >= 0
}
