"""What a small world is made of, and the model of it before it has learnt anything."""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
)

from unlora.config import Config

END, PAD = "<|end|>", "<|pad|>"


class SmallWorld(Config):
    """What the world is made of; its hash names its folder in the user's cache."""

    seed: int = Field(default=0, ge=0)
    """Of people, weights and data order: another seed is another target model."""
    people: int = Field(default=60, ge=2)
    forget_people: int = Field(default=6, ge=1)
    held_out_people: int = Field(default=10, ge=1)
    """People whom target and retain-only model know, but who are in no retain set: what is kept of them is the test."""
    questions_per_person: int = Field(default=6, ge=1)
    hidden_size: int = Field(default=192, ge=16, multiple_of=8)
    """Shared by four heads, each of an even width."""
    layers: int = Field(default=4, ge=1)
    vocabulary: int = Field(default=1024, ge=258)
    epochs: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    batch_size: int = Field(default=32, ge=1)
    version: int = 1
    """Raised whenever the same settings build another world."""

    @model_validator(mode="after")
    def _somebody_is_kept(self) -> "SmallWorld":
        if self.forget_people + self.held_out_people >= self.people:
            raise ValueError("people: must be more than forget_people and held_out_people together")
        return self


class MixtureWorld(SmallWorld):
    """The same of a mixture of experts, of which every token takes two in each layer."""

    experts: int = Field(default=8, ge=2)


class GptOssWorld(MixtureWorld):
    """The same of gpt-oss' class, whose experts are what is published in MXFP4."""

    family: Literal["gpt_oss"] = "gpt_oss"


def untrained_model(world: SmallWorld, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Random weights in Llama's architecture, or in Qwen3-MoE's or gpt-oss', float32."""
    end, pad = (tokenizer.backend_tokenizer.token_to_id(token) for token in (END, PAD))
    inner = 8 * world.hidden_size // 3 // 32 * 32
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": world.hidden_size,
        "intermediate_size": inner,
        "num_hidden_layers": world.layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": pad,
    }
    mixed: dict[str, Any] = {}
    if isinstance(world, MixtureWorld):
        # A token's two experts are together as wide as the dense layer.
        mixed = {"num_experts": world.experts, "num_experts_per_tok": 2, "moe_intermediate_size": inner // 2}
        mixed["head_dim"] = world.hidden_size // 4
    config: PreTrainedConfig
    if isinstance(world, GptOssWorld):
        sizes |= {"intermediate_size": inner // 2, "num_local_experts": world.experts, "num_experts_per_tok": 2}
        rotary: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
        config = GptOssConfig(**sizes, rope_parameters=rotary, head_dim=world.hidden_size // 4)
    else:
        config = Qwen3MoeConfig(**sizes, **mixed) if mixed else LlamaConfig(**sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.seed)
        return AutoModelForCausalLM.from_config(config)
