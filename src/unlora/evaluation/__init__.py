"""Suites of measurements: ask a model once, keep every example's scores, turn them into metrics and a record."""
