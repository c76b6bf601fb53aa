"""Grids of runs that answer a question, each cell resumable; and a small world to run many of them in."""
