"""The ratio in cases small enough to do by hand, and its invariances."""

import math
from dataclasses import replace

import pytest
import torch

from unlora.importance import ratio
from unlora.importance.importance_map import (
    FactoredImportance,
    FullImportance,
    ImportanceMap,
    ImportanceMetadata,
    MarginalImportance,
    ModuleImportance,
    SetCounts,
    SetImportance,
)
from unlora.importance.ratio import module_ratio, module_score, most_important_modules


def float32(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def marginal(rows: list[float], columns: list[float]) -> MarginalImportance:
    return MarginalImportance(float32(rows), float32(columns))


def factored(lora_b: list[list[float]], lora_a: list[list[float]]) -> FactoredImportance:
    return FactoredImportance(float32(lora_b), float32(lora_a))


def full(values: list[list[float]]) -> FullImportance:
    return FullImportance(float32(values))


def test_marginals_divide_rows_by_rows_and_columns_by_columns():
    # Floors: a tenth of the means 4 and 10, so 0.4 and 1.
    importance = ModuleImportance(marginal([4.4, 7.6], [3, 2, 8]), marginal([4, 4], [9, 20, 1]))
    ratio = module_ratio(importance, relative_floor=0.1)
    torch.testing.assert_close(ratio.row_weights, torch.tensor([1.0, 7.6 / 4.4]))
    torch.testing.assert_close(ratio.column_weights, torch.tensor([0.3, 2 / 21, 4]))
    assert ratio.floored_fraction == 0


def test_full_weights_sum_the_ratio_of_every_weight():
    # Floor: a tenth of the mean 2.
    importance = ModuleImportance(full([[2.2, 3.4], [6.2, 0]]), full([[2, 1.5], [2.9, 1.6]]))
    ratio = module_ratio(importance, relative_floor=0.1)
    torch.testing.assert_close(ratio.row_weights, torch.tensor([3.0, 2.0]))
    torch.testing.assert_close(ratio.column_weights, torch.tensor([3.0, 2.0]))


def test_lora_factors_take_the_ratio_of_the_products():
    forget = factored([[1, 1], [2, 0]], [[2, 4], [1, 0]])  # [[3, 4], [4, 8]]
    retain = factored([[1], [3]], [[1, 2]])  # [[1, 2], [3, 6]], mean 3, floor 0.3
    ratio = module_ratio(ModuleImportance(forget, retain), relative_floor=0.1)
    rows = [3 / 1.3 + 4 / 2.3, 4 / 3.3 + 8 / 6.3]
    torch.testing.assert_close(ratio.row_weights, torch.tensor(rows))
    torch.testing.assert_close(ratio.column_weights, torch.tensor([3 / 1.3 + 4 / 3.3, 4 / 2.3 + 8 / 6.3]))


@pytest.mark.parametrize("with_retain", [True, False])
def test_sums_over_rows_at_a_time_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, *, with_retain: bool):
    monkeypatch.setattr(ratio, "CHUNK_ENTRIES", 40)  # three rows of thirteen, and one that is left over
    generator = torch.Generator().manual_seed(0)
    sets = [
        FactoredImportance(torch.rand(10, 2, generator=generator) ** 4, torch.rand(2, 13, generator=generator) ** 4)
        for _ in range(2)
    ]
    importance = ModuleImportance(sets[0], sets[1] if with_retain else None)
    found, whole = module_ratio(importance, 0.5), module_ratio(importance, 0.5, elementwise=True)
    assert whole.weights is not None
    torch.testing.assert_close(found.row_weights, whole.weights.sum(dim=1))
    torch.testing.assert_close(found.column_weights, whole.weights.sum(dim=0))
    assert found.floored_fraction == whole.floored_fraction
    assert found.weights is None


def test_matrix_is_returned_when_asked_for():
    importance = ModuleImportance(full([[2.2, 3.4], [6.2, 0]]), full([[2, 1.5], [2.9, 1.6]]))
    assert module_ratio(importance, relative_floor=0.1).weights is None
    asked = module_ratio(importance, relative_floor=0.1, elementwise=True)
    torch.testing.assert_close(asked.weights, torch.tensor([[1.0, 2.0], [2.0, 0.0]]))
    torch.testing.assert_close(asked.row_weights, torch.tensor([3.0, 2.0]))

    forget = factored([[1, 1], [2, 0]], [[2, 4], [1, 0]])  # [[3, 4], [4, 8]]
    retain = factored([[1], [3]], [[1, 2]])  # [[1, 2], [3, 6]], mean 3, floor 0.3
    of_factors = module_ratio(ModuleImportance(forget, retain), relative_floor=0.1, elementwise=True)
    torch.testing.assert_close(of_factors.weights, torch.tensor([[3 / 1.3, 4 / 2.3], [4 / 3.3, 8 / 6.3]]))


def test_matrix_of_marginals_is_their_outer_product_and_not_formed():
    importance = ModuleImportance(marginal([4.4, 7.6], [3, 2, 8]), marginal([4, 4], [9, 20, 1]))
    ratio = module_ratio(importance, elementwise=True)
    assert ratio.weights is None
    assert (len(ratio.row_weights), len(ratio.column_weights)) == (2, 3)


def test_floored_fraction_counts_denominators_below_the_floor():
    # Mean of the rows 25, floor 25 x 0.01 = 0.25: two of four lie below. Columns: none of four.
    importance = ModuleImportance(marginal([1] * 4, [1] * 4), marginal([0, 0.2, 0.3, 99.5], [1] * 4))
    assert module_ratio(importance).floored_fraction == 0.25
    assert module_ratio(importance, relative_floor=0.001).floored_fraction == 0.125
    of_full = ModuleImportance(full([[1, 1]]), full([[0, 1]]))
    assert module_ratio(of_full).floored_fraction == 0.5


PAIRS: list[tuple[SetImportance, SetImportance]] = [
    (marginal([1, 2, 5], [0.5, 3]), marginal([2, 0.001, 1], [1, 7])),
    (factored([[1, 2], [0.5, 3]], [[1, 0.1], [4, 2]]), factored([[0.001, 1], [3, 2]], [[1, 1], [0.2, 5]])),
    (full([[1, 2], [0.5, 3]]), full([[0.0001, 1], [3, 2]])),
]


def scaled(importance: SetImportance, factor: float) -> SetImportance:
    return replace(importance, **{field: factor * tensor for field, tensor in vars(importance).items()})


@pytest.mark.parametrize(("forget", "retain"), PAIRS)
def test_scale_of_either_set_changes_the_weights_by_a_constant_only(forget: SetImportance, retain: SetImportance):
    plain = module_ratio(ModuleImportance(forget, retain))
    for forget_scale, retain_scale in ((1e-6, 1.0), (1.0, 1e-6), (3e-9, 7e4)):
        other = module_ratio(ModuleImportance(scaled(forget, forget_scale), scaled(retain, retain_scale)))
        for name in ("row_weights", "column_weights"):
            before, after = getattr(plain, name), getattr(other, name)
            torch.testing.assert_close(after / after.sum(), before / before.sum())
        assert other.floored_fraction == plain.floored_fraction


@pytest.mark.parametrize(("forget", "retain"), PAIRS)
def test_without_a_retain_set_the_denominator_is_one(forget: SetImportance, retain: SetImportance):
    ratio = module_ratio(ModuleImportance(forget, None))
    if isinstance(forget, MarginalImportance):
        rows, columns = forget.rows, forget.columns
    else:
        dense = forget.lora_b @ forget.lora_a if isinstance(forget, FactoredImportance) else forget.values
        rows, columns = dense.sum(dim=1), dense.sum(dim=0)
    assert torch.equal(ratio.row_weights, rows)
    assert torch.equal(ratio.column_weights, columns)
    assert ratio.floored_fraction == 0


def test_retain_set_that_does_not_touch_the_layer_leaves_the_forget_importance():
    ratio = module_ratio(ModuleImportance(marginal([1, 2], [3, 4]), marginal([0, 0], [0, 0])))
    assert ratio.row_weights.tolist() == [1, 2]
    assert ratio.column_weights.tolist() == [3, 4]
    assert ratio.floored_fraction == 1


@pytest.mark.parametrize(
    ("forget", "retain", "score"),
    [
        (marginal([1, 5], [2, 4]), marginal([1, 2], [3, 0]), 2),
        (factored([[1], [2]], [[1, 3]]), factored([[2], [1]], [[1, 0]]), 4),
        (full([[1, 2], [3, 4]]), full([[1, 1], [1, 1]]), 2.5),
        (full([[1, 2], [3, 4]]), None, 10),
        (full([[1.0]]), full([[0.0]]), math.inf),
        (full([[0.0]]), full([[0.0]]), 0),
    ],
)
def test_score_is_the_ratio_of_the_totals(forget: SetImportance, retain: SetImportance | None, score: float):
    assert module_score(ModuleImportance(forget, retain)) == score


def map_with_scores(scores: list[float]) -> ImportanceMap:
    modules = {f"layer{index}": ModuleImportance(full([[score]]), full([[1.0]])) for index, score in enumerate(scores)}
    counts = SetCounts(example_count=2, token_count=2, unscored_count=0)
    metadata = ImportanceMetadata(
        statistic="variance", space="full_weights", rank=None, probe_std=None, seed=0, model_fingerprint=None,
        module_shapes=dict.fromkeys(modules, (1, 1)), forget=counts, retain=counts,
    )  # fmt: skip
    return ImportanceMap(modules, metadata)


@pytest.mark.parametrize(
    ("coverage", "chosen"),
    [(1.0, [0, 1, 2, 3, 4, 5, 6, 7]), (0.5, [1, 3, 4, 6]), (0.25, [3, 6]), (0.125, [6]), (0.01, [6])],
)
def test_coverage_keeps_the_highest_scores_in_model_order(coverage: float, chosen: list[int]):
    importance = map_with_scores([0.1, 4, 0.2, 5, 3, 1, 9, 0])
    assert most_important_modules(importance, coverage) == [f"layer{index}" for index in chosen]
