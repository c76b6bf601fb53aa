"""The only door to the internals of transformers and peft: load, find layers, score, generate, save."""
