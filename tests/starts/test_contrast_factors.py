"""A start in contrast directions."""

import pytest
import torch

from tests.adapters.test_anchored import token_batch
from tests.tiny import build_tiny_model
from unlora.adapters import check_output_unmoved
from unlora.adapters.anchored import factor_parameters, lora_layers
from unlora.errors import InputError
from unlora.importance.contrast_map import estimate_contrast
from unlora.models.target_modules import find_target_modules
from unlora.starts.attach import attach_anchored_adapter
from unlora.starts.contrast_factors import contrast_factors
from unlora.starts.initialise import initial_factors


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_directions_with_the_norms_of_the_uniform_start(arch):
    model = build_tiny_model(arch)
    targets = find_target_modules(model)
    contrast = estimate_contrast(model, [token_batch()], [token_batch(4, 16)], rank=3)
    factors = contrast_factors(targets, contrast, rank=2, scaling=2.0)
    uniform = initial_factors(targets, None, rank=2, scaling=2.0)
    for name, start in factors.items():
        assert float(start.lora_b.norm()) == pytest.approx(float(uniform[name].lora_b.norm()), rel=1e-5)
        assert float(start.lora_a.norm()) == pytest.approx(float(uniform[name].lora_a.norm()), rel=1e-5)
        for factor, directions in ((start.lora_b, contrast[name].outputs), (start.lora_a.T, contrast[name].inputs)):
            cosines = torch.nn.functional.cosine_similarity(factor, directions[:, :2], dim=0)
            assert cosines.tolist() == pytest.approx([1, 1], abs=1e-5)
    adapted = attach_anchored_adapter(model, rank=2, alpha=4, factors=factors)
    assert check_output_unmoved(adapted, token_batch()).largest_difference < 1e-5


def test_contrast_map_alone_decides_the_start():
    """In Python as in the recipe: input directions only give an ordinary adapter of rank r that starts with B = 0."""
    model = build_tiny_model("llama")
    contrast = estimate_contrast(model, [token_batch()], [token_batch(4, 16)], rank=3, inputs_only=True)
    adapted = attach_anchored_adapter(model, contrast, rank=2, alpha=4, freeze_a=True)
    layers = dict(lora_layers(adapted))
    assert set(layers) == set(contrast)
    for name, one in contrast.items():
        lora_a, lora_b = factor_parameters(layers[name])
        assert lora_a.shape[0] == 2
        assert not lora_b.any()
        cosines = torch.nn.functional.cosine_similarity(lora_a.T, one.inputs[:, :2], dim=0)
        assert cosines.tolist() == pytest.approx([1, 1], abs=1e-5)
    with pytest.raises(InputError, match="holds 3 directions, the adapter's rank is 4"):
        attach_anchored_adapter(build_tiny_model("llama"), contrast, rank=4)
