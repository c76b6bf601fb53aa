"""Settings of an evaluation on TOFU or on sets of one's own. Pure data: validating a file loads no torch."""

from typing import Literal

from pydantic import Field

from unlora.suites.settings import SuiteSettings

ProtocolName = Literal["unlora", "tofu", "open_unlearning"]


class TofuSettings(SuiteSettings):
    """What is measured before and after."""

    protocol: ProtocolName = "unlora"
    """How: unlora's own, TOFU's (300 items, 200 tokens in all), or OpenUnlearning's (all items, 200 new tokens)."""
    forget: str | None = None
    """Set to evaluate forgetting on; None takes data.forget (or its perturbed version for TOFU)."""
    retain: str | None = None
    """Set to evaluate retention on; None takes data.retain (or its perturbed version for TOFU)."""
    real_authors: str | None = None
    """TOFU's real authors, for model utility; None takes those beside a TOFU forget set (not in protocol unlora)."""
    world_facts: str | None = None
    """TOFU's world facts, for model utility; None as for real_authors."""
    retain_only: str | None = None
    """A model that never saw the forget set, its saved scores (.jsonl), or the log of TOFU or OpenUnlearning about it
    (.json): the reference for forget quality."""
    max_examples: int | None = Field(default=None, ge=1)
    """First examples of each set that are evaluated; None is the protocol's number."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest generated answer; None is the protocol's limit."""
    batch_size: int = Field(default=16, ge=1)
    """Sequences per forward pass."""
