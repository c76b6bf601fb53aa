"""A gradient that is infinite or undefined is refused with set, batch and layer: one would spoil a whole set's sums."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.importance.reference import batches_of, examples
from tests.tiny import build_tiny_model
from unlora.errors import InputError
from unlora.importance.contrast_map import estimate_contrast
from unlora.importance.estimate import IMPORTANCE_PRESETS, estimate_importance
from unlora.models.target_modules import find_target_modules

FORGET, RETAIN = examples(seed=1), examples(((8, 3), (13, 5), (6, 1), (10, 6)), seed=2)
ROW = 1


def spoil(model: PreTrainedModel, pass_number: int, value: float) -> None:
    """In one backward pass, give an example `value` somewhere in the gradient that leaves the last block.

    The loss is as it was: nothing but the gradient shows it.
    """
    passes = 0

    def damage(gradient: Tensor) -> Tensor:
        damaged = gradient.clone()
        damaged[ROW, -2, 3] = value
        return damaged

    def hook(_module: torch.nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal passes
        passes += 1
        if passes == pass_number:
            output.register_hook(damage)

    model.get_submodule("model.layers.0").register_forward_hook(hook)


def measure(model: PreTrainedModel, kind: str) -> None:
    forget, retain = batches_of(FORGET, 3), batches_of(RETAIN, 2)
    targets = list(find_target_modules(model))  # named: none is left out, so no trial pass comes before the first
    if kind.startswith("contrast"):
        estimate_contrast(model, forget, retain, rank=3, inputs_only=kind == "contrast_inputs", target_modules=targets)
    else:
        estimate_importance(model, forget, retain, preset=kind, rank=3, target_modules=targets)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [*IMPORTANCE_PRESETS, "contrast", "contrast_inputs"])
def test_one_number_that_is_not_finite_is_refused_with_its_place(kind: str, value: float):
    forget_batches = len(batches_of(FORGET, 3))
    for pass_number, where in ((1, "the forget set, batch 1"), (forget_batches + 2, "the retain set, batch 2")):
        model = build_tiny_model("llama")
        spoil(model, pass_number, value)
        with pytest.raises(InputError) as raised:
            measure(model, kind)
        # Backward, the last layer of the block comes first; block 1 was past when the number came.
        place = "is not finite, at target module 'model.layers.0.mlp.down_proj' first;"
        assert str(raised.value).startswith(f"{where}: the gradient of 1 of its ")
        assert place in str(raised.value)


def test_undefined_weight_is_refused_at_once_for_all_examples():
    model = build_tiny_model("llama")
    model.get_parameter("model.norm.weight").data[0] = float("nan")
    seen: list[int] = []
    with pytest.raises(InputError, match=r"batch 1: the gradient of 3 of its 3 examples is not finite"):
        estimate_importance(model, batches_of(FORGET, 3), None, preset="marginal", progress=seen.append)
    assert seen == []
