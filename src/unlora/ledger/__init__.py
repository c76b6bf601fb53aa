"""The ledger of deletion requests: what is written down of each, chained by hashes, and what follows from it."""
