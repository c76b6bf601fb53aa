"""TOFU, and any forget and retain set of one's own in the same way."""
