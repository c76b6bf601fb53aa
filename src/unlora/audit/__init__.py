"""Is the knowledge gone, or only silent? One attack a file, each against the model that never saw the forget set."""
