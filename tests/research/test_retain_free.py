"""Maps whose two sets are drawn as a source says, samples that name nobody to be forgotten, and what the tables say."""

import pandas
import pytest
import torch

from tests.tiny import build_tiny_model
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.importance import estimate_contrast, estimate_importance
from unlora_research.measuring import MeasuredModel
from unlora_research.retain_free.figures import figures
from unlora_research.retain_free.maps import agreement, contrast_map, importance_map, measure_map, overlap
from unlora_research.retain_free.names import SOURCES
from unlora_research.retain_free.sources import GradientSet, GradientSets, Stock, gradient_sets, own_samples
from unlora_research.retain_free.study import RetainFreeSettings, cells
from unlora_research.retain_free.summary import lost, summary
from unlora_research.small_world import TINY_WORLD, build_small_world, world_people

PAD = 1


def gradient_set(*, seed: int = 0, weights: int = 0) -> GradientSet:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(2, 100, (12, 9), generator=generator).tolist()
    examples = [TokenisedExample(tuple(row), 4, False, "made up") for row in rows]
    return GradientSet(
        build_tiny_model("llama", seed=weights), [collate(examples[:8], PAD), collate(examples[8:], PAD)]
    )


@pytest.mark.parametrize("method", ["vila", "marginal"])
def test_importance_is_the_librarys_of_both_models(method: str):
    forget, other = gradient_set(), gradient_set(seed=1, weights=1)
    expected = estimate_importance(
        forget.model, forget.batches, other.batches, retain_model=other.model, preset=method, rank=8, seed=3
    )
    found = importance_map(method, forget, other, 3)
    assert agreement(found, expected) == pytest.approx(1)
    assert found.metadata == expected.metadata
    alone = importance_map(method, forget, None, 3)
    assert alone.metadata.retain is None
    assert agreement(alone, expected) < 0.99


@pytest.mark.parametrize("start", ["contrast", "contrast_inputs"])
@pytest.mark.parametrize("has_divisor", [False, True])
def test_contrast_is_the_librarys(start: str, has_divisor: bool):
    forget, divisor = gradient_set(), gradient_set(seed=1) if has_divisor else None
    found = contrast_map(start, forget, divisor, 3)
    expected = estimate_contrast(
        forget.model,
        forget.batches,
        divisor.batches if divisor else None,
        seed=3,
        inputs_only=start == "contrast_inputs",
    )
    assert found.metadata == expected.metadata
    assert overlap(found, expected) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("start", ["marginal", "contrast_inputs"])
def test_agreement_is_one_with_the_retain_set_and_less_without(start: str):
    forget, retain = gradient_set(), gradient_set(seed=1)
    assert measure_map(start, GradientSets(forget, retain, retain), 3)[1] == pytest.approx(1, abs=1e-5)
    assert measure_map(start, GradientSets(forget, retain, None), 3)[1] < 0.99


def test_sets_are_those_that_a_source_names():
    files, people = build_small_world(TINY_WORLD), world_people(TINY_WORLD)
    target = MeasuredModel.load(files.target, "cpu")
    own, dropped = own_samples(target, people.forget, 4, seed=0)
    names = {str(one.person) for one in people.forget}
    assert dropped >= 0
    assert 0 < len(own) <= 4
    assert not [one for one in own if any(name in one.completion for name in names)]
    stock = Stock(target, people, own, files.retain_only)
    found = {source: gradient_sets(source, stock, count=4, seed=0) for source in SOURCES}
    for source, sets in found.items():
        assert sets.forget.model is sets.retain.model is target.model
        assert sum(len(batch["labels"]) for batch in sets.forget.batches) == len(people.forget)
        divisor = sets.divisor
        if divisor is None:
            assert source == "none"
            continue
        assert sum(len(batch["labels"]) for batch in divisor.batches) == (len(own) if source == "own_samples" else 4)
        assert (divisor.model is target.model) == (source != "base")
        assert (divisor is sets.retain) == (source == "retain")


def test_overlap_of_directions_with_their_complement_is_nought():
    forget, retain = gradient_set(), gradient_set(seed=1)
    found = contrast_map("contrast_inputs", forget, retain, 3)
    turned = contrast_map("contrast_inputs", forget, retain, 3)
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
