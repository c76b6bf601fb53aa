"""Whole jobs, each one column of calls into the packages below."""
