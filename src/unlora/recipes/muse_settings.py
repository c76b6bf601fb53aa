"""Settings of an evaluation on MUSE. Pure data: validating a file loads no torch."""

from typing import Literal

from pydantic import Field

from unlora.config import Config
from unlora.recipes.settings import ModelSettings


class MuseSettings(Config):
    """One corpus, and the models that are measured on it."""

    model: ModelSettings
    adapter: str | None = None
    """An unlearning adapter for the model: both are measured, with it off and on."""
    corpus: Literal["news", "books"]
    """Which of MUSE's two corpora."""
    folder: str | None = None
    """Holds news/ and books/ as MUSE's load_data.py writes them, or is the folder of one; None loads from the hub."""
    retain_only: str | None = None
    """A model that never saw the forget texts, or its saved scores (.jsonl): what PrivLeak is relative to. None takes
    MUSE's published number for its own 7B model, which means little for another."""
    retain_only_base: str | None = None
    """Base of the retain-only adapter, when not where its own config says."""
    batch_size: int = Field(default=8, ge=1)
    """Sequences per forward pass; whole texts are scored, so that logits are large."""
    max_examples: int | None = Field(default=None, ge=1)
    """First items of each part; None takes all, as MUSE does."""
