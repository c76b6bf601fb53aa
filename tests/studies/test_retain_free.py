"""Maps of two models against those of one, samples that name nobody to be forgotten, and what the tables say."""

import pandas
import pytest
import torch

from tests.tiny import build_tiny_model
from unlora.data.tokenise import TokenisedExample
from unlora.importance import estimate_contrast, estimate_importance
from unlora.importance.importance_map import MarginalImportance
from unlora.studies.retain_free import (
    GradientSet,
    RetainFreeSettings,
    agreement,
    cells,
    contrast_map,
    figures,
    importance_map,
    lost,
    overlap,
    summary,
)

PAD = 1


def gradient_set(*, seed: int = 0, weights: int = 0) -> GradientSet:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(2, 100, (12, 9), generator=generator).tolist()
    examples = [TokenisedExample(tuple(row), 4, False, "made up") for row in rows]
    built = build_tiny_model("llama")
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.02 * weights * torch.randn(parameter.shape, generator=generator))
    return GradientSet(built, examples, PAD)


@pytest.mark.parametrize("method", ["vila", "marginal"])
def test_map_of_two_sets_of_one_model_is_the_one_that_is_measured_together(method: str):
    forget, retain = gradient_set(), gradient_set(seed=1)
    together = estimate_importance(forget.model, forget.batches(), retain.batches(), preset=method, rank=8, seed=3)
    found = importance_map(method, forget, retain, 3)
    assert agreement(found, together) == pytest.approx(1)
    assert found.metadata == together.metadata
    alone = importance_map(method, forget, None, 3)
    assert alone.metadata.retain is None
    assert agreement(alone, together) < 0.99


def test_divisor_of_another_model_changes_the_map_and_leaves_it_the_targets():
    forget, other = gradient_set(), gradient_set(weights=1)
    found, same = (importance_map("marginal", forget, one, 3) for one in (other, forget))
    assert found.metadata.model_fingerprint == same.metadata.model_fingerprint
    name = found.modules[0]
    expected = estimate_importance(other.model, other.batches(), None, preset="marginal")
    for one, wanted in ((found[name].forget, same[name].forget), (found[name].retain, expected[name].forget)):
        assert isinstance(one, MarginalImportance)
        assert isinstance(wanted, MarginalImportance)
        assert torch.equal(one.rows, wanted.rows)


@pytest.mark.parametrize("inputs_only", [False, True])
@pytest.mark.parametrize("has_divisor", [False, True])
def test_contrast_of_one_model_is_that_of_the_library(inputs_only: bool, has_divisor: bool):
    forget, retain = gradient_set(), gradient_set(seed=1) if has_divisor else None
    found = contrast_map(forget, retain, 3, inputs_only=inputs_only)
    expected = estimate_contrast(
        forget.model, forget.batches(), retain.batches() if retain else None, seed=3, inputs_only=inputs_only
    )
    assert found.metadata == expected.metadata
    assert overlap(found, expected) == pytest.approx(1, abs=1e-4)
    for name, one in expected.items():
        assert torch.allclose(found[name].input_eigenvalues, one.input_eigenvalues, rtol=1e-3)
        assert (found[name].outputs is None) == inputs_only


def test_overlap_of_directions_with_their_complement_is_nought():
    forget, retain = gradient_set(), gradient_set(seed=1)
    found = contrast_map(forget, retain, 3, inputs_only=True)
    turned = contrast_map(forget, retain, 3, inputs_only=True)
    for name in found:
        q = found[name].inputs
        outside = torch.linalg.qr(torch.cat([q, torch.randn(len(q), 8)], dim=1)).Q[:, 8:]
        turned[name].inputs.copy_(outside)
    assert overlap(found, turned) == pytest.approx(0, abs=1e-6)
    assert overlap(found, found) == pytest.approx(1, abs=1e-5)


def test_grid_has_every_source_for_every_method_and_no_retain_set_where_it_says_so():
    grid = cells(RetainFreeSettings(seeds=(0, 1)))
    assert len({cell.sha256() for cell in grid}) == len(grid) == 2 * (2 + 4 * 5 + 5)
    assert [cell.seed for cell in grid] == [0] * 27 + [1] * 27  # a whole world before the next
    without = [cell for cell in grid if cell.training == "own_samples"]
    assert {cell.source for cell in without} == {None, "own_samples"}
    assert {cell.learning_rates for cell in without} == {RetainFreeSettings().rates_without}


def row(start: str, source: str | None, seed: int, balance: float, **values: object) -> dict[str, object]:
    return {
        "start": start, "source": source, "training": "retain", "seed": seed, "learning_rate": 1.0,
        "validation_balance": balance, "test_balance": balance, "test_forget_probability": 0.1, "test_kept": 0.9,
        "test_forget_quality_log10": -1.0, "agreement": 0.5 if source else float("nan"),
    } | values  # fmt: skip


TABLE = pandas.DataFrame(
    [row("plain", None, seed, 0.7) for seed in (0, 1)]
    + [row("marginal", "retain", seed, 0.9) for seed in (0, 1)]
    + [row("marginal", "none", seed, 0.8 + 0.06 * seed) for seed in (0, 1)]
    + [row("marginal", "none", 0, 0.1, learning_rate=2.0)]
    + [row("marginal", "own_samples", 0, 0.6, training="own_samples")]
)


def test_losses_are_paired_by_seed_at_the_chosen_rate():
    chosen = TABLE[(TABLE["learning_rate"] == 1.0) & (TABLE["training"] == "retain")]
    assert lost(chosen, "marginal", "none") == pytest.approx([0.1, 0.04])
    assert lost(chosen, "marginal", "generic") == []
    text = summary(TABLE)
    assert "- `marginal`: balance lost against the true retain set: nothing 0.070 [0.040, 0.100]." in text
    assert "| `plain` | no data |  | 1 |" in text
    usual, _, without = text.partition("**No retain set at all")
    assert "own samples" not in usual
    assert "| `marginal` | own samples | 0.50 |" in without


def test_figures_of_what_there_is():
    assert list(figures(TABLE)) == ["sources", "without"]
    assert list(figures(TABLE[TABLE["training"] == "retain"])) == ["sources"]
    panels = figures(TABLE)["sources"].axes
    assert [axes.get_title() for axes in panels] == ["marginal"]
