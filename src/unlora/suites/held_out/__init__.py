"""Held-out facts."""
