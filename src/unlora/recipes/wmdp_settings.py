"""Settings of an evaluation on WMDP. Pure data: validating a file loads no torch."""

from typing import Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from unlora.config import Config
from unlora.recipes.settings import ModelSettings, Template


class WmdpSettings(Config):
    """The questions, and the models that are measured on them."""

    model: ModelSettings
    adapter: str | None = None
    """An unlearning adapter for the model: both are measured, with it off and on."""
    tasks: list[Literal["bio", "cyber", "chem", "mmlu"]] = Field(
        default_factory=lambda: ["bio", "cyber", "chem", "mmlu"], min_length=1
    )
    """WMDP's three sets, and MMLU for what must stay; from the hub. Not used where `file` is given."""
    file: str | None = None
    """Multiple-choice questions in WMDP's form (JSON lines, a JSON list, or the hub's Parquet file): works offline."""
    subject: Literal["bio", "cyber", "chem"] | None = None
    """What `file` is about: puts the harness's own line on that subject before each question, as on the hub's set."""
    retain_only: str | None = None
    """A model that never saw what was to be forgotten, or its saved scores (.jsonl), to compare with."""
    retain_only_base: str | None = None
    """Base of the retain-only adapter, when not where its own config says."""
    open_ended: bool = True
    """Ask WMDP's questions without their options too."""
    template: Template = "auto"
    """Of the questions without options, as in `unlora evaluate`; those with options have none, as in the harness."""
    chat_template: str | None = None
    """As in `unlora evaluate`."""
    template_arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """As in `unlora evaluate`."""
    batch_size: int = Field(default=8, ge=1)
    """Sequences per forward pass; the harness computes logits of whole prompts."""
    max_examples: int | None = Field(default=None, ge=1)
    """First questions of each task, and of each of MMLU's 57 subjects; None takes all."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Longest free answer."""

    @field_validator("tasks")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("must name each task once")
        return value

    @model_validator(mode="after")
    def _subject_of_a_file(self) -> "WmdpSettings":
        if self.subject is not None and self.file is None:
            raise ValueError(f"subject '{self.subject}': says what a local file is about; give file, or name tasks")
        return self
