"""README.md of what is handed over, and the names in it."""
