"""The laboratory: grids of runs that answer a question, each cell resumable, and a small world to run them in."""
