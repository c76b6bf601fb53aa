"""The shapes that are measured."""

import argparse
from typing import Any

import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import shapes
from unlora.errors import InputError

CPU = torch.device("cpu")


def test_llama_2_7b_has_its_size():
    sizes: dict[str, Any] = {**shapes.CONFIGS["llama2-7b"]}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_738_415_616


def test_a_cut_model_has_the_same_blocks():
    whole = shapes.random_model("tiny", None, device=CPU, dtype=torch.float32)
    cut = shapes.random_model("tiny", 1, device=CPU, dtype=torch.bfloat16)
    block = {name: value.shape for name, value in whole.model.layers[0].state_dict().items()}
    assert {name: value.shape for name, value in cut.model.layers[0].state_dict().items()} == block
    assert (len(whole.model.layers), len(cut.model.layers)) == (2, 1)
    assert cut.dtype == torch.bfloat16
    assert float(whole.model.layers[0].mlp.up_proj.weight.std()) == pytest.approx(0.02, rel=0.05)


def test_weights_that_do_not_fit_are_refused_before_they_are_drawn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: argparse.Namespace(available=12e9))
    with pytest.raises(InputError, match=r"take 27\.0 GB, 12\.0 GB are free; give fewer --layers"):
        shapes.random_model("llama2-7b", None, device=CPU, dtype=torch.float32)


def test_random_examples_follow_from_the_seed_and_lengths():
    first, again, other = (shapes.random_examples(3, 50, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert all(2 <= token < 50 for example in first for token in example.input_ids)
    fixed = shapes.random_examples(2, 50, 0, lengths=(4, 7))
    assert [(len(example.input_ids), example.prompt_length) for example in fixed] == [(11, 4), (11, 4)]
