"""Which classes of transformers work: tiny models of all of them, each through the whole path."""
