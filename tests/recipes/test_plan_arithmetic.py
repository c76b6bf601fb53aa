"""Sums of a plan, against Llama-2-7B by hand, against real accumulators and a real optimiser."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import build_tiny_model
from unlora.importance.contrast_map import SKETCH_COLUMNS
from unlora.importance.moments import Moments
from unlora.importance.sketch import GradientSketch
from unlora.importance.spaces import FullWeightStatistics, LoraFactorStatistics, MarginalStatistics, virtual_factors
from unlora.models.target_modules import find_target_modules
from unlora.recipes.plan import arithmetic
from unlora.starts import make_start
from unlora.starts.attach import attach_anchored_adapter
from unlora.starts.sizes import BatchShape, Device, Layers

LLAMA_2_7B = Layers(
    modules=32 * 7,
    area=32 * (4 * 4096**2 + 3 * 4096 * 11008),
    outputs=32 * (4 * 4096 + 2 * 11008 + 4096),
    inputs=32 * (4 * 4096 + 2 * 4096 + 11008),
    largest=4096 * 11008,
)


def test_weights_of_llama_2_7b():
    """13.48 GB in bfloat16; of 6 738 415 616 weights 6 476 005 376 are rounded, to 4.5 bits with nf4's scales."""
    assert arithmetic.weight_bytes(13_476_831_232, LLAMA_2_7B, 2, None) == 13_476_831_232
    rest = 2 * (6_738_415_616 - 6_476_005_376)
    assert arithmetic.weight_bytes(13_476_831_232, LLAMA_2_7B, 2, "8bit") == rest + 6_476_005_376
    assert arithmetic.weight_bytes(13_476_831_232, LLAMA_2_7B, 2, "4bit") == rest + 6_476_005_376 * 9 // 16


def test_files_of_llama_2_7b():
    """What is published: 51.8 GB of squared gradients, 159.9 MB of factors' variances (rank 8), both in float32."""

    def size(kind: str) -> int:
        return make_start(kind).file_bytes(LLAMA_2_7B, rank=8, sets=2)

    assert size("fila") == size("fila_published") == 2 * 4 * 6_476_005_376
    assert size("vila") == size("vila_published") == 2 * 4 * 8 * 2_498_560
    assert size("marginal") == 2 * 4 * 2_498_560 < 25_000_000


CPU = Device(number_bytes=4, is_host=True)


def one_layer(d_out: int, d_in: int) -> Layers:
    return Layers(modules=1, area=d_out * d_in, outputs=d_out, inputs=d_in, largest=d_out * d_in)


def held(*owners: object) -> int:
    """Bytes of all tensors that these objects hold, directly or in tuples and further objects."""
    tensors: dict[int, Tensor] = {}

    def visit(value: object) -> None:
        if isinstance(value, Tensor):
            tensors[value.data_ptr()] = value
        elif isinstance(value, list | tuple):
            for one in value:
                visit(one)
        elif hasattr(value, "__dict__"):
            visit(list(vars(value).values()))

    visit(owners)
    return sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize("kind", ["contrast", "contrast_inputs"])
def test_sketches_of_both_sets(kind: Any):
    options: dict[str, Any] = {"columns": SKETCH_COLUMNS, "seed": 0, "device": torch.device("cpu")}
    only = kind == "contrast_inputs"
    sketches = [GradientSketch(name, (24, 40), inputs_only=only, **options) for name in ("forget", "retain")]
    planned = make_start(kind).statistics_bytes(one_layer(24, 40), 4, CPU)
    assert planned == held(*sketches)


@pytest.mark.parametrize("kind", ["marginal", "vila", "variance_full"])
def test_sums_of_the_retain_set_beside_the_forget_sets_record(kind: Any):
    inputs, gradients = torch.randn(6, 5, 40), torch.randn(6, 5, 24)
    made = {
        "marginal": MarginalStatistics,
        "vila": lambda: LoraFactorStatistics(*virtual_factors("layer", 24, 40, rank=4, probe_std=0.1, seed=0)),
        "variance_full": lambda: FullWeightStatistics(Moments(centred=True)),
    }
    forget, retain = made[kind](), made[kind]()
    for statistics in (forget, retain):
        statistics.update(inputs, gradients)
    total = held(retain) + held(list(forget.read("variance").values()))
    planned = make_start(kind).statistics_bytes(one_layer(24, 40), 4, CPU)
    # Evidence is not in the plan: a few numbers a row. A layer's own moments are, where the gradient is formed.
    transient = 3 * 4 * 24 * 40 if kind == "variance_full" else 0
    assert total - 4 * (2 * 24 + 8) <= planned - transient <= total + 4 * 3 * 24


@pytest.mark.parametrize("freeze_a", [False, True])
def test_gradients_and_adamw_of_a_real_optimiser(freeze_a: bool):
    """The frozen half of an anchored factor has both as well: it is part of the same tensor."""
    model = build_tiny_model("llama")
    targets = find_target_modules(model).values()
    layers = Layers(
        modules=len(targets),
        area=sum(target.d_out * target.d_in for target in targets),
        outputs=sum(target.d_out for target in targets),
        inputs=sum(target.d_in for target in targets),
        largest=0,
    )
    adapted = attach_anchored_adapter(model, rank=4, alpha=8, freeze_a=freeze_a)
    optimiser = torch.optim.AdamW([one for one in adapted.parameters() if one.requires_grad], weight_decay=0.0)
    ids = torch.randint(0, 128, (2, 7), generator=torch.Generator().manual_seed(0))
    adapted(input_ids=ids, labels=ids).loss.backward()
    optimiser.step()
    gradients = sum(one.grad.nbytes for one in adapted.parameters() if one.grad is not None)
    moments = sum(value.nbytes for state in optimiser.state.values() for value in state.values() if value.numel() > 1)
    updated = arithmetic.updated_parameters(layers, 4, anchored=True, freeze_a=freeze_a)
    assert arithmetic.BYTES_AN_UPDATED_PARAMETER * updated == gradients + moments


def test_logits_by_hand():
    """3 of 18 positions are scored, over 10 words in bfloat16: 3 x 10 x (2 + 2 + 2 + 4 + 4)."""
    batch = BatchShape(rows=2, length=9, scored=3)
    assert arithmetic.logit_bytes(batch, 10, 2) == 420
    assert arithmetic.reference_logit_bytes(batch, 10, 2, 0.5) == 0.5 * 180
    assert arithmetic.pass_flops(100.0, 40, batch) == 100 * 18 + 4 * 40 * 3


def test_buffers_go_with_what_comes_and_goes():
    parts = {"base weights": 100, "activations": 40, "logits": 10, "reference logits": 6}
    assert arithmetic.with_buffers(parts) == {**parts, "buffers": 28}


def test_checkpointing_keeps_one_block_and_every_blocks_input():
    assert arithmetic.checkpointed_bytes(1200, blocks=3, tokens=5, hidden=8, size=2) == 400 + 3 * 5 * 8 * 2
