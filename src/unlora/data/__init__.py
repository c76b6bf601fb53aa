"""Examples: where they come from, how they become tokens, how they are batched."""
