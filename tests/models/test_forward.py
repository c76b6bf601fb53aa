"""Reading piece by piece against reading the whole at once, also where a model's memory cannot be continued."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from tests.tiny import ARCHITECTURES, build_tiny_model
from unlora.models.forward import Reader

COMMON: dict[str, Any] = {"vocab_size": 128, "hidden_size": 32, "initializer_range": 0.2}


def build_mamba() -> PreTrainedModel:
    """No attention, and no memory under the usual name."""
    return MambaForCausalLM(MambaConfig(**COMMON, num_hidden_layers=2, state_size=8))


def build_lfm2() -> PreTrainedModel:
    """A convolution with a memory of its own before the attention."""
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    kinds = ["conv", "full_attention"]
    return Lfm2ForCausalLM(Lfm2Config(**COMMON, **heads, intermediate_size=64, layer_types=kinds))


def build_bloom() -> PreTrainedModel:
    """Positions come from the mask; there are no position ids."""
    return BloomForCausalLM(BloomConfig(**COMMON, n_layer=2, n_head=4))


def build_opt() -> PreTrainedModel:
    """Position embeddings with an offset."""
    sizes: dict[str, Any] = {"ffn_dim": 64, "word_embed_proj_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return OPTForCausalLM(OPTConfig(**(COMMON | {"init_std": 0.2}), **sizes, max_position_embeddings=64))


OTHERS: dict[str, Callable[[], PreTrainedModel]] = {
    "mamba": build_mamba,
    "lfm2": build_lfm2,
    "bloom": build_bloom,
    "opt": build_opt,
}


def build(name: str) -> PreTrainedModel:
    if name not in OTHERS:
        return build_tiny_model(name)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OTHERS[name]().eval()


def read(reader: Reader, rows: list[list[int]], *, left_pad: int = 0) -> Tensor:
    """Read rows of one length, of which the first has `left_pad` padding tokens, with logits for all of them."""
    input_ids = torch.tensor(rows)
    mask = torch.ones_like(input_ids)
    mask[0, :left_pad] = 0
    return reader.read(input_ids, mask, keep=input_ids.shape[1], more=True)


@torch.no_grad()
@pytest.mark.parametrize("name", [*ARCHITECTURES, *OTHERS])
def test_pieces_equal_the_whole_whatever_rows_go_on(name: str):
    model = build(name)
    reader = Reader(model)
    read(reader, [[3, 3, 3, 11, 12], [5, 6, 7, 8, 9]], left_pad=3)
    reader.select([1, 0, 1, 0])
    middle = read(reader, [[20, 21, 22], [30, 31, 32], [40, 41, 42], [50, 51, 52]])
    reader.select([0, 3])
    pieces = [middle[[0, 3]], *(read(reader, [[token], [token + 1]]) for token in (60, 70))]
    wholes = [[5, 6, 7, 8, 9, 20, 21, 22, 60, 70], [11, 12, 50, 51, 52, 61, 71]]
    for row, whole in enumerate(wholes):
        expected = model(input_ids=torch.tensor([whole])).logits[0, -5:]
        got = torch.cat(pieces, dim=1)[row]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        assert expected.std() > 0.1, "logits all alike would agree whatever was read"


@torch.no_grad()
def test_nothing_is_read_twice():
    model = build("llama")
    counts: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _module, inputs: counts.append(inputs[0].shape[1]))
    reader = Reader(model)
    for rows in ([[1, 2, 3, 4]], [[5, 6]], [[7]]):
        read(reader, rows)
    assert counts == [4, 2, 1]
