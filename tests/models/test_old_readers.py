"""A saved folder holds what transformers 4 looks for, by names written down by hand, and transformers 5 reads the same.

The names are those of the configuration classes of transformers 4.57, with which each of these models was read once.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    Olmo3Config,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
)

from tests.tiny import build_tiny_tokenizer
from unlora.models.load import load_tokenizer
from unlora.models.quiet import quiet
from unlora.models.save import save_model

SMALL: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": None,
}  # fmt: skip
LAYERS: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
PLAIN = {"rope_type": "default"}

CASES: dict[str, tuple[PretrainedConfig, dict[str, Any]]] = {
    "llama": (
        LlamaConfig(**SMALL, rope_parameters={**PLAIN, "rope_theta": 1e5}),
        {"rope_theta": 1e5, "rope_scaling": None, "partial_rotary_factor": None, "rope_local_base_freq": None},
    ),
    "llama 3": (
        LlamaConfig(**SMALL, rope_parameters={**LLAMA3, "rope_theta": 5e5}),
        {"rope_theta": 5e5, "rope_scaling": LLAMA3},
    ),
    "phi": (
        PhiConfig(**SMALL, rope_parameters={**PLAIN, "rope_theta": 7e4, "partial_rotary_factor": 0.5}),
        {"rope_theta": 7e4, "partial_rotary_factor": 0.5, "rope_scaling": None},
    ),
    "phi 3": (
        Phi3Config(
            **SMALL, original_max_position_embeddings=64,
            rope_parameters={"rope_type": "longrope", "rope_theta": 7e4, **LONG},
        ),
        {
            "rope_theta": 7e4, "rope_scaling": {"type": "longrope", **LONG},
            "original_max_position_embeddings": 64,
        },
    ),
    "gpt-neox": (
        GPTNeoXConfig(**SMALL, rope_parameters={**PLAIN, "rope_theta": 7e4, "partial_rotary_factor": 0.5}),
        {"rotary_emb_base": 7e4, "rotary_pct": 0.5, "rope_theta": None},
    ),
    "gemma 3": (
        Gemma3TextConfig(
            **SMALL, **LAYERS, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 3e5},
                "sliding_attention": {**PLAIN, "rope_theta": 5e3},
            },
        ),
        {"rope_theta": 3e5, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ),
    "olmo 3": (
        Olmo3Config(
            **SMALL, **LAYERS,
            rope_parameters={
                "full_attention": {**YARN, "rope_theta": 3e5}, "sliding_attention": {**PLAIN, "rope_theta": 3e5},
            },
        ),
        {"rope_theta": 3e5, "rope_local_base_freq": None, "rope_scaling": YARN},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rotary_embedding_stands_under_its_old_names_too(name: str, tmp_path: Path):
    config, expected = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
    save_model(model, build_tiny_tokenizer(), tmp_path / "model")
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert {key: written.get(key) for key in expected} == expected
    tokens = torch.arange(2, 120)[None]
    with quiet(), torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        torch.testing.assert_close(again(tokens).logits, model(tokens).logits, atol=1e-6, rtol=0)
    read = {key: value for key, value in again.config.rope_parameters.items() if key != "type"}  # Phi-3's old name.
    assert read == model.config.rope_parameters


def test_tokenizer_is_read_by_both_and_names_no_argument_of_ours(tmp_path: Path):
    """`TokenizersBackend` and a list of extra tokens are unknown to transformers 4, which then reads nothing."""
    tokenizer = build_tiny_tokenizer(chat=True)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<extra>"]})
    tokenizer.save_pretrained(tmp_path / "first")
    (tmp_path / "first" / "config.json").write_text('{"model_type": "llama"}')
    loaded = load_tokenizer(str(tmp_path / "first"))  # As every command reads one: from this machine alone.
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL))
    save_model(model, loaded, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["additional_special_tokens"] == ["<extra>"]
    assert not {"is_local", "local_files_only", "extra_special_tokens"} & settings.keys()
    again = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "Where?\n <|end|> <extra> Zoë"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.convert_tokens_to_ids("<extra>") in again.all_special_ids
    assert again.chat_template == tokenizer.chat_template
