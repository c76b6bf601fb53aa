"""RWKU."""
