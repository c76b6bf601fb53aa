"""Settings of the two sets of a run. Pure data: validating a file loads no torch."""

from typing import Literal

from pydantic import Field, JsonValue

from unlora.config import Config

Template = Literal["auto", "chat", "plain", "llama2"]


class DataSettings(Config):
    """The two sets and how their text becomes tokens."""

    forget: str
    """JSON lines file, or tofu:SPLIT (hub), or tofu:SPLIT@FOLDER."""
    retain: str | None = None
    """The same for what must stay; None only for objectives without a retain term."""
    template: Template = "auto"
    """chat (the tokenizer's), plain ("Question: ... / Answer: ..."), llama2 ("[INST] ... [/INST]"), or auto: chat where
    there is one, else plain."""
    chat_template: str | None = None
    """Name of one of the tokenizer's chat templates, where it has several; null is the one called "default"."""
    template_arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Further variables of the chat template, such as {enable_thinking: false}."""
    max_length: int = Field(default=512, ge=8)
    """Longest example in tokens."""
    on_long: Literal["truncate", "refuse"] = "truncate"
    """What to do with a longer one."""
