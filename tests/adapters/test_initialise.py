"""Starting factors: where B0 A0 comes from."""

import pytest
import torch

from tests.adapters.test_anchored import token_batch
from tests.tiny import build_tiny_model
from unlora.adapters import initial_factors
from unlora.errors import InputError
from unlora.importance import estimate_importance
from unlora.importance.ratio import module_ratio
from unlora.models.target_modules import find_target_modules


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_uniform_start_is_the_truncated_svd(arch):
    targets = find_target_modules(build_tiny_model(arch))
    factors = initial_factors(targets, None, rank=5, scaling=2.0)
    assert list(factors) == list(targets)
    for name, start in factors.items():
        weight = targets[name].weight()
        values = torch.linalg.svdvals(weight)
        lost = float((weight - 2.0 * start.lora_b @ start.lora_a).norm())
        assert lost == pytest.approx(float(values[5:].norm()), rel=1e-4)
        assert start.relative_residual == pytest.approx(float(values[5:].norm() / values.norm()), rel=1e-4)
        assert start.floored_fraction is None


def test_weighted_start_is_the_best_in_its_own_norm():
    """Lower weighted error than the uniform start, higher plain error."""
    model = build_tiny_model("llama")
    targets = find_target_modules(model, ["down_proj"])
    importance = estimate_importance(
        model, [token_batch()], [token_batch(4, 16)], preset="marginal", target_modules=list(targets)
    )
    weighted = initial_factors(targets, importance, rank=4, scaling=1.0)
    uniform = initial_factors(targets, None, rank=4, scaling=1.0)
    for name, target in targets.items():
        rows = module_ratio(importance[name]).row_weights
        errors = [target.weight() - start[name].lora_b @ start[name].lora_a for start in (weighted, uniform)]
        in_weights = [float((rows[:, None] * error.square()).sum()) for error in errors]
        plain = [float(error.square().sum()) for error in errors]
        assert in_weights[0] < in_weights[1]
        assert plain[0] > plain[1]
        assert weighted[name].floored_fraction is not None


def test_progress_counts_modules_and_a_rank_that_does_not_fit_is_refused():
    targets, seen = find_target_modules(build_tiny_model("llama")), []
    initial_factors(targets, None, rank=2, scaling=1.0, progress=seen.append)
    assert seen == [1] * len(targets)
    for rank in (0, 17):
        with pytest.raises(InputError, match=r"adapter\.rank"):
            initial_factors(targets, None, rank=rank, scaling=1.0)
