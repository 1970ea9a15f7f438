"""One training on several processes: who is there, and who holds what."""
