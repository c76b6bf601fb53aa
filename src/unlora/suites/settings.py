"""Settings that every suite has. Pure data: validating a file loads no torch."""

from pydantic import Field

from unlora.config import Config


class SuiteSettings(Config):
    """How models are asked, and what they are compared with."""

    retain_only: str | None = None
    """A model that never saw what was to be forgotten, or its saved scores (.jsonl), to compare with."""
    retain_only_base: str | None = None
    """Base of the retain-only adapter, when not where its own config says."""
    batch_size: int = Field(default=8, ge=1)
    """Sequences per forward pass."""
    max_examples: int | None = Field(default=None, ge=1)
    """First items of each part that are asked; None takes all."""
