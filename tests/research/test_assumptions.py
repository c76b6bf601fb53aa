"""Errors where they are known, factors of the variance they should have, and the theorem's expectation."""

import math

import pandas
import pytest
import torch

from unlora_research.assumptions.accuracy import errors
from unlora_research.assumptions.factors import DISTRIBUTIONS, Factors, draw_factor, draw_factors
from unlora_research.assumptions.figures import figures
from unlora_research.assumptions.grid import RANK, AssumptionsSettings, cells
from unlora_research.assumptions.questions import BEST, LIMIT
from unlora_research.assumptions.reading import noise, slope
from unlora_research.assumptions.summary import summary
from unlora_research.assumptions.theorem import FORMS, Gradients, best_product, factor_parts, truth_of


def gradients(examples: int = 5, d_out: int = 6, d_in: int = 4) -> tuple[Gradients, torch.Tensor]:
    """Made-up inputs and output gradients with a mean, and the weight gradient of every example."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(examples, 3, d_in, generator=generator) + 0.5
    outputs = torch.randn(examples, 3, d_out, generator=generator) * torch.arange(1.0, d_out + 1) + 0.3
    return Gradients(inputs, outputs), torch.einsum("eto,eti->eoi", outputs, inputs)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_factors_have_mean_zero_and_variance_one(distribution: str):
    generator = torch.Generator().manual_seed(1)
    drawn = torch.cat([draw_factor(distribution, 48, 32, generator) for _ in range(400)])
    allowed = {"correlated_columns": 0.03, "student_t3": 0.1}.get(distribution, 0.02)
    assert float(drawn.mean()) == pytest.approx(0, abs=allowed)
    assert float(drawn.square().mean()) == pytest.approx(1, abs=allowed)


def test_orthogonal_columns_and_correlated_entries_are_what_they_are_called():
    generator = torch.Generator().manual_seed(2)
    orthogonal = draw_factor("orthogonal", 48, 8, generator)
    assert torch.allclose(orthogonal @ orthogonal.T, 48 * torch.eye(8), atol=1e-3)
    along = draw_factor("correlated_entries", 48, 4000, generator)
    assert float((along[:, 0] * along[:, 2]).mean()) == pytest.approx(0.81, abs=0.05)
    between = torch.stack([draw_factor("correlated_columns", 48, 2, generator) for _ in range(400)])
    assert float((between[:, 0] * between[:, 1]).mean()) == pytest.approx(0.9, abs=0.05)


def test_a_layers_factors_depend_on_its_name_alone():
    both = draw_factors({"first": (6, 4), "second": (6, 4)}, "gaussian", 2, seed=0, draw=0)
    assert (both["second"].lora_b.shape, both["second"].lora_a.shape) == ((6, 2), (2, 4))
    assert not torch.equal(both["first"].lora_a, both["second"].lora_a)
    alone = draw_factors({"second": (6, 4)}, "gaussian", 2, seed=0, draw=0)["second"].scaled(0.1)
    torch.testing.assert_close(alone.lora_b, 0.1 * both["second"].lora_b)
    assert not torch.equal(
        draw_factors({"first": (6, 4)}, "gaussian", 2, seed=0, draw=1)["first"].lora_a, both["first"].lora_a
    )


def test_truth_is_the_variance_of_explicit_gradients_and_its_limit_the_product_of_marginals():
    seen, explicit = gradients()
    truth, variance = truth_of(seen), explicit.var(dim=0)
    squared_mean = explicit.mean(dim=0).square()
    assert torch.allclose(truth.weight.variance, variance, rtol=1e-4)
    assert torch.allclose(truth.weight.squared_mean, squared_mean, rtol=1e-3, atol=1e-4)
    rows, columns = variance.sum(dim=1), variance.sum(dim=0)
    assert torch.allclose(truth.limits["variances"], torch.outer(rows, columns), rtol=1e-3)
    of_means = torch.outer(squared_mean.sum(dim=1), squared_mean.sum(dim=0))
    gap = truth.limits["second_moments"] - truth.limits["with_means"]
    assert torch.allclose(gap, of_means, rtol=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_product_of_many_independent_columns_comes_to_its_limit(form: str):
    seen, _ = gradients()
    generator, rank = torch.Generator().manual_seed(3), 100_000
    lora_a = draw_factor("gaussian", 4, rank, generator)
    lora_b = draw_factor("gaussian", 6, rank, generator).T
    estimate = factor_parts(seen, Factors(lora_a, lora_b)).estimate(form, rank) / rank
    assert torch.allclose(estimate, truth_of(seen).limits[form], rtol=0.05)


def test_rank_takes_the_first_columns():
    seen, explicit = gradients()
    lora_a, lora_b = torch.randn(5, 4), torch.randn(6, 5)
    variance_b = (explicit @ lora_a[:2].T).var(dim=0)
    variance_a = (lora_b[:, :2].T @ explicit).var(dim=0)
    estimate = factor_parts(seen, Factors(lora_a, lora_b)).estimate("variances", 2)
    assert torch.allclose(estimate, variance_b @ variance_a, rtol=1e-3)


def test_errors_by_hand():
    truth = torch.outer(torch.arange(1.0, 4), torch.arange(1.0, 5))
    assert errors(7 * truth, truth) == pytest.approx({"frobenius": 0, "entries": 1, "rows": 1}, abs=1e-6)
    upside_down = errors(truth.flip(0), truth)
    assert upside_down["rows"] == pytest.approx(-1)
    diagonal = torch.eye(9) * torch.arange(1.0, 10)  # a product of marginals against a diagonal
    flat = errors(torch.ones(9, 9), torch.eye(9))["frobenius"]
    assert flat == pytest.approx(math.sqrt(1 - 1 / 9))
    best = errors(best_product(diagonal), diagonal)["frobenius"]
    assert best == pytest.approx(math.sqrt(1 - 81 / 285))  # 81 of 1 + 4 + ... + 81


def test_slope_of_a_known_power():
    sines = [size / math.sqrt(1 + size**2) for size in (1.0, 0.5, 0.25)]  # orthogonal to a limit of size 1
    table = pandas.DataFrame({"rank": [1, 4, 16] * 2, "sampling": sines * 2})
    assert list(noise(table)) == pytest.approx([1.0, 0.5, 0.25] * 2)
    assert slope(table) == pytest.approx(-0.5)


def test_grid_has_one_theorem_and_every_coverage_in_each_world():
    grid = cells(AssumptionsSettings())
    assert [(cell.part, cell.layers) for cell in grid[:4]] == [
        ("theorem", None), ("coverage", "all"), ("coverage", "top"), ("coverage", "random")
    ]  # fmt: skip
    assert len({cell.sha256() for cell in grid}) == len(grid) == 12
    assert all(cell.world.seed == cell.seed for cell in grid)


def theorem(distribution: str, rank: float, frobenius: float, sampling: float, **values: object) -> dict[str, object]:
    return {
        "part": "theorem", "layers": None, "seed": 0, "asked": "rank", "case": "learnt", "form": "variances",
        "distribution": distribution, "rank": rank, "squared_mean": 0.04, "frobenius": frobenius, "entries": 0.5,
        "rows": 1 - frobenius, "ratio_rows": 0.25, "sampling": sampling,
    } | values  # fmt: skip


def covered(layers: str, rate: float, balance: float) -> dict[str, object]:
    return {
        "part": "coverage", "layers": layers, "seed": 0, "learning_rate": rate, "validation_balance": balance,
        "test_balance": balance - 0.1, "test_forget_probability": 0.1, "test_kept": 0.9,
        "test_forget_quality_log10": -1.0, "chosen": "0.q 1.down", "trained_parameters": 4000,
    }  # fmt: skip


NAN = float("nan")
TABLE = pandas.DataFrame(
    [
        theorem("gaussian", 2, 0.8, 0.4**0.5),  # noise squared 2/3, and 1/6 at four times the rank
        theorem("gaussian", RANK, 0.6, (1 / 7) ** 0.5),
        theorem(LIMIT, NAN, 0.3, 0.0),
        theorem(BEST, NAN, 0.2, 0.0),
        theorem("gaussian", RANK, 0.61, 0.25, asked="sigma", sigma=0.1, inserted=False),
        theorem("gaussian", RANK, 0.62, 0.25, asked="sigma", sigma=0.2, inserted=False),
        theorem("gaussian", RANK, 0.9, 0.8, asked="sigma", sigma=0.2, inserted=True),
        theorem("gaussian", RANK, 0.7, 0.2, asked="depth", module="1.down", layer=1),
        theorem(LIMIT, NAN, 0.4, 0.0, asked="depth", module="1.down", layer=1),
        covered("top", 1, 0.5),
        covered("top", 2, 0.8),
        covered("random", 2, 0.6),
    ]
)


def test_summary_tells_the_two_parts_of_the_error_apart():
    text = summary(TABLE)
    assert "(infinite rank) misses the exact variance by 0.300 of its norm, the best product there is by 0.200" in text
    assert "falls as rank to the power -0.50" in text
    assert "the same relative error to within 1e-02" in text
    assert "with the truth is 0.100 at 0.2." in text
    assert "top 25 % by importance minus random 25 %: 0.200." in text
    assert "| Gaussian | 0.600 | 0.500 | 0.400 | 0.250 | 0.408 | 0.408 | -0.50 |" in text
    assert "| 0.2 | inserted | 0.900 |" in text
    assert "| block 1 | infinite rank | 0.400 |" in text
    assert "| top 25 % by importance | 2 | 0.100 | 90.0 % | -1.00 | 0.700 | 4 | seed 0: 0.q 1.down |" in text


def test_figures_and_summary_of_what_there_is():
    assert list(figures(TABLE)) == ["rank", "sigma", "depth", "coverage"]
    alone = TABLE[TABLE["part"] == "coverage"]
    assert list(figures(alone)) == ["coverage"]
    assert "Theorem" not in summary(alone)
    only = TABLE[TABLE["asked"] == "rank"]
    assert list(figures(only)) == ["rank"]
    assert "**Coverage**" not in summary(only)
    unlearnt = alone.dropna(
        axis="columns", how="all"
    )  # As a study leaves it in which no cell of the theorem succeeded.
    assert list(figures(unlearnt)) == ["coverage"]
    assert summary(unlearnt).startswith("- Balance, top 25 % by importance minus random 25 %")
