"""The model that goes into every run. Pure data."""

from typing import Literal

from pydantic import Field

from unlora.config import Config


class ModelSettings(Config):
    """The target model."""

    name: str = Field(min_length=1)
    """Hub id, local folder, PEFT adapter folder, or "embedded" (SmolLM2-135M-Instruct)."""
    base: str | None = None
    """Where the base of an adapter lies, when not where its own config says."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the base weights; auto is bfloat16 on an accelerator, and on a processor that multiplies it fast
    for files in bfloat16; float32 otherwise."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    quantisation: Literal["4bit", "8bit"] | None = None
    """Linear layers in 4 bits (nf4) or 8 bits (LLM.int8) by bitsandbytes; null takes the model as its files are."""
    trust_remote_code: bool = False
    """Run Python code that the model folder brings along."""
