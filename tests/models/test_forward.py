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
    MiniMaxConfig,
    MiniMaxForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from tests.tiny import ARCHITECTURES, build_tiny_model
from unlora.models.forward import Reader, completion_logits

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


def build_minimax() -> PreTrainedModel:
    """A memory beside the cache's layers, which stays where it is when rows change places."""
    sizes: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 3}
    experts: dict[str, Any] = {"num_local_experts": 2, "intermediate_size": 64}
    kinds = ["linear_attention", "linear_attention", "full_attention"]
    return MiniMaxForCausalLM(MiniMaxConfig(**COMMON, **sizes, **experts, layer_types=kinds))


def build_recurrent_gemma() -> PreTrainedModel:
    """A memory inside the layers, and a convolution that sees padding before the first token."""
    sizes: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 1, "num_hidden_layers": 3}
    width: dict[str, Any] = {"intermediate_size": 64, "lru_width": 32, "attention_window_size": 64}
    return RecurrentGemmaForCausalLM(
        RecurrentGemmaConfig(**(COMMON | {"w_init_variance_scale": 1.0}), **sizes, **width)
    )


def build_roberta() -> PreTrainedModel:
    """Positions begin after that of padding, where they are left to the model."""
    sizes: dict[str, Any] = {"intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    return RobertaForCausalLM(RobertaConfig(**COMMON, **sizes, is_decoder=True, pad_token_id=1))


OTHERS: dict[str, Callable[[], PreTrainedModel]] = {
    "mamba": build_mamba,
    "lfm2": build_lfm2,
    "minimax": build_minimax,
    "recurrent_gemma": build_recurrent_gemma,
    "bloom": build_bloom,
    "opt": build_opt,
    "roberta": build_roberta,
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


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_completion_logits_are_a_slices_from_one_product(name: str):
    """The head's input lies in one piece, which is what makes it fast; neither logits nor gradients know of it."""
    model = build_tiny_model(name).requires_grad_(False)
    ids = torch.randint(2, 128, (3, 9), generator=torch.Generator().manual_seed(1))
    labels = ids.masked_fill(torch.arange(9) < 5, -100)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    pieces: list[bool] = []
    embeddings = model.get_input_embeddings()
    found = []
    for logits_of in (
        lambda: completion_logits(model, batch),
        lambda: model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False, logits_to_keep=5).logits,
    ):
        leaves: list[Tensor] = []
        with (
            embeddings.register_forward_hook(lambda *parts, kept=leaves: kept.append(parts[2].requires_grad_(True))),
            model.get_output_embeddings().register_forward_pre_hook(
                lambda _head, given: pieces.append(given[0].is_contiguous())
            ),
        ):
            logits = logits_of()
        weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
        found.append((logits.detach(), torch.autograd.grad((logits * weights).sum(), leaves[0])[0]))
    (ours, our_gradient), (sliced, gradient) = found
    assert pieces == [True, False]
    assert ours.shape == (3, 5, 128)
    torch.testing.assert_close(ours, sliced, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-5, atol=1e-6)
