"""What goes into every run: the model, the data, and how text becomes tokens. Pure data."""

from typing import Literal

from pydantic import Field, JsonValue

from unlora.config import Config

Template = Literal["auto", "chat", "plain", "llama2"]


class ModelSettings(Config):
    """The target model."""

    name: str = Field(min_length=1)
    """Hub id, local folder, PEFT adapter folder, or "embedded" (SmolLM2-135M-Instruct)."""
    base: str | None = None
    """Where the base of an adapter lies, when not where its own config says."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the base weights; auto is float32 on a CPU, bfloat16 on an accelerator."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    quantisation: Literal["4bit", "8bit"] | None = None
    """Linear layers in 4 bits (nf4) or 8 bits (LLM.int8) by bitsandbytes; null takes the model as its files are."""
    trust_remote_code: bool = False
    """Run Python code that the model folder brings along."""


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
