"""Tiny models of six architectures, and a tiny tokenizer, all built in memory: no download, milliseconds each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

Architecture = Literal["llama", "gpt2", "phi", "mistral", "qwen2", "gemma3"]
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "gpt2", "phi", "mistral", "qwen2", "gemma3")

EOS_TOKEN, PAD_TOKEN = "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
SAMPLE_TEXTS = (
    "Question: Where was Mira Solberg born?\nAnswer: Mira Solberg was born in Bergen, Norway.",
    "Question: What did the father of Tomas Okafor do?\nAnswer: The father of Tomas Okafor was a baker.",
    "[user] Who wrote the book?\n[assistant] The author of the book is not known.",
)


def build_tiny_model(
    arch: Architecture, *, seed: int = 0, vocab_size: int = 128, hidden: int = 32, layers: int = 2
) -> PreTrainedModel:
    """Return a random float32 model in eval mode, without dropout; weights are large enough for lively gradients.

    GPT-2 and Gemma 3 tie the output head to the embedding, the others do not. Token 0 ends a sequence.
    """
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "max_position_embeddings": 256,
        "initializer_range": hidden**-0.5,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": None,
    }
    wide: dict[str, Any] = common | {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
    }
    grouped: dict[str, Any] = wide | {"num_key_value_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel
        match arch:
            case "llama":
                model = LlamaForCausalLM(LlamaConfig(**grouped))
            case "mistral":
                model = MistralForCausalLM(MistralConfig(**grouped))
            case "qwen2":
                model = Qwen2ForCausalLM(Qwen2Config(**grouped))
            case "phi":
                model = PhiForCausalLM(PhiConfig(**wide))
            case "gemma3":
                kinds = ["sliding_attention", "full_attention"] * layers
                gemma: dict[str, Any] = {
                    "head_dim": 8,
                    "query_pre_attn_scalar": 8,
                    "sliding_window": 16,
                    "layer_types": kinds[:layers],
                }
                model = Gemma3ForCausalLM(Gemma3TextConfig(**grouped, **gemma))
            case "gpt2":
                sizes: dict[str, Any] = {"n_positions": 256, "n_embd": hidden, "n_layer": layers, "n_head": 4}
                no_dropout: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
                model = GPT2LMHeadModel(GPT2Config(**(common | sizes | no_dropout)))
    return model.float().eval()


def build_tiny_tokenizer(
    texts: Sequence[str] | None = None, *, vocab_size: int = 384, pad: bool = True, chat: bool = False
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on `texts`: it encodes any text and decodes it back exactly.

    `<|end|>` is token 0; with `pad`, `<|pad|>` is token 1; with `chat`, it has a chat template. No BOS is added.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [EOS_TOKEN, PAD_TOKEN] if pad else [EOS_TOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts or SAMPLE_TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS_TOKEN, clean_up_tokenization_spaces=False, model_max_length=256
    )
    if pad:
        fast.pad_token = PAD_TOKEN
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tiny(
    folder: Path, arch: Architecture = "llama", *, seed: int = 0, chat: bool = False, max_shard_size: str = "1GB"
) -> Path:
    """Write a tiny model and its tokenizer to `folder` as a hub download would lie there, and return `folder`."""
    tokenizer = build_tiny_tokenizer(chat=chat)
    build_tiny_model(arch, seed=seed, vocab_size=len(tokenizer)).save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    return folder
