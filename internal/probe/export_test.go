package probe

// Alone reports whether nothing else may run during the cells of a way.
func Alone(name string) bool {
	for i := range ways {
		if ways[i].name == name {
			return ways[i].alone
		}
	}
	return false
}
