"""Benchmarks, each one object: what it asks and what it makes of the answers. Asking and keeping is shared by all."""
