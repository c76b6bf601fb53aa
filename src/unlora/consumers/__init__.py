"""Programs that read what is exported: forms of theirs that are written here, and what they make of them."""
