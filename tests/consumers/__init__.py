"""Forms for other programs, and what those make of them where they are installed."""
