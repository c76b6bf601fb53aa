"""Starting factors: where B0 A0 comes from."""

import inspect

import pytest
import torch

from tests.adapters.test_anchored import token_batch
from tests.tiny import build_tiny_model
from unlora.errors import InputError
from unlora.importance import ImportanceMap, estimate_importance
from unlora.importance.importance_map import MarginalImportance, ModuleImportance
from unlora.importance.ratio import module_ratio
from unlora.low_rank import WeightedLowRankProblem, solve_row_weighted
from unlora.models.target_modules import find_target_modules
from unlora.starts.initialise import initial_factors, row_order


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


def measured(preset: str, *patterns: str):
    """A tiny model's target modules and their importance."""
    model = build_tiny_model("llama")
    targets = find_target_modules(model, list(patterns) or None)
    sets = [token_batch()], [token_batch(4, 16)]
    return targets, estimate_importance(model, *sets, preset=preset, rank=4, target_modules=list(targets))


@pytest.mark.parametrize("preset", ["fila", "vila"])
def test_each_solver_is_the_best_in_the_weights_that_it_uses(preset: str):
    targets, importance = measured(preset)
    starts = {
        solver: initial_factors(targets, importance, rank=4, scaling=0.5, solver=solver)
        for solver in ("row", "separable", "elementwise")
    }
    for name, target in targets.items():
        ratio = module_ratio(importance[name], elementwise=True)
        weights = {
            "row": ratio.row_weights[:, None].expand_as(ratio.weights),
            "separable": torch.outer(ratio.row_weights, ratio.column_weights),
            "elementwise": ratio.weights,
        }
        errors = {
            solver: (target.weight() - 0.5 * start[name].lora_b @ start[name].lora_a).square()
            for solver, start in starts.items()
        }
        for solver, start in starts.items():
            in_weights = {other: float((weights[solver] * error).sum()) for other, error in errors.items()}
            assert min(in_weights, key=in_weights.__getitem__) == solver
            whole = float((weights[solver] * target.weight().square()).sum())
            assert start[name].relative_residual == pytest.approx((in_weights[solver] / whole) ** 0.5, rel=1e-4)
    assert {start.status for start in starts["elementwise"].values()} == {"converged"}


def test_marginals_are_separable_whatever_entries_are_asked_for():
    targets, importance = measured("marginal")
    separable, elementwise = (
        initial_factors(targets, importance, rank=4, scaling=1.0, solver=solver)
        for solver in ("separable", "elementwise")
    )
    row = initial_factors(targets, importance, rank=4, scaling=1.0)
    for name in targets:
        assert torch.equal(elementwise[name].lora_b, separable[name].lora_b)
        assert torch.equal(elementwise[name].lora_a, separable[name].lora_a)
        assert not torch.equal(row[name].lora_a, separable[name].lora_a)


def test_row_solver_is_the_default_and_takes_the_row_weights_as_they_are():
    targets, importance = measured("fila")
    factors = initial_factors(targets, importance, rank=4, scaling=1.0, seed=3)
    for name, target in targets.items():
        weights = module_ratio(importance[name]).row_weights
        expected = solve_row_weighted(WeightedLowRankProblem(target.weight(), 4, row_weights=weights), seed=3)
        assert torch.equal(factors[name].lora_b, expected.left)
        assert torch.equal(factors[name].lora_a, expected.right)


@pytest.mark.parametrize("solver", ["row", "separable", "elementwise"])
def test_shuffled_rows_are_the_same_weights_in_another_order(solver):
    """Moving the rows of W the other way moves the rows of B with them: the problem is the same one."""
    targets, importance = measured("fila", "up_proj")
    shuffled = initial_factors(targets, importance, rank=4, scaling=1.0, solver=solver, shuffle_rows=True, seed=5)
    plain = initial_factors(targets, importance, rank=4, scaling=1.0, solver=solver, seed=5)
    orders = {name: row_order(name, target.d_out, 5) for name, target in targets.items()}
    with torch.no_grad():
        for name, target in targets.items():
            target.module.weight.copy_(target.module.weight[orders[name].argsort()])
    expected = initial_factors(targets, importance, rank=4, scaling=1.0, solver=solver, seed=5)
    for name, start in shuffled.items():
        product = (expected[name].lora_b @ expected[name].lora_a)[orders[name]]
        torch.testing.assert_close(start.lora_b @ start.lora_a, product, rtol=1e-3, atol=1e-5)
        assert start.relative_residual == pytest.approx(expected[name].relative_residual, rel=1e-4)
        assert start.relative_residual != pytest.approx(plain[name].relative_residual, rel=1e-4)


def test_order_of_rows_depends_on_the_seed_and_the_name_and_on_nothing_else():
    first = row_order("layers.0.up_proj", 64, 0)
    assert sorted(first.tolist()) == list(range(64))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(row_order("layers.0.up_proj", 64, 0), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(row_order("layers.1.up_proj", 64, 0), first)
    assert not torch.equal(row_order("layers.0.up_proj", 64, 1), first)


def test_what_cannot_be_solved_or_shuffled_is_refused():
    targets, importance = measured("marginal", "up_proj")
    with pytest.raises(InputError, match="shuffle_rows: without an importance map"):
        initial_factors(targets, None, rank=2, scaling=1.0, shuffle_rows=True)
    unchecked = inspect.unwrap(initial_factors)  # without the checks of types that only the test run has
    with pytest.raises(InputError, match="solver: 'column' is none of row, separable, elementwise"):
        unchecked(targets, importance, rank=2, scaling=1.0, solver="column")
    nothing = {
        name: ModuleImportance(MarginalImportance(torch.zeros(target.d_out), torch.zeros(target.d_in)), None)
        for name, target in targets.items()
    }
    with pytest.raises(InputError, match=r"ratio of target module '.*up_proj': row_weights: .* not all zero"):
        initial_factors(targets, ImportanceMap(nothing, importance.metadata), rank=2, scaling=1.0)
