"""Order books: continuity, state and resynchronization decisions. Pure."""
