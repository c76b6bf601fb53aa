import math
from dataclasses import dataclass

import pytest
import torch

from tests.losses.examples import random_predictions
from unlora.errors import InputError
from unlora.losses import NPO, ForgetTerm, GradientAscent, InvertedHinge, Objective, Predictions, RetainNLL
from unlora.shapes import PerExample

FORGET = random_predictions(seed=1)
RETAIN = random_predictions(seed=2)
REFERENCE = torch.tensor([-6.0, -3.0, -2.5], dtype=torch.float64)


@dataclass(frozen=True)
class Half(ForgetTerm):
    name = "half"
    summary = "Half of gradient ascent."
    paper = "arXiv 0000.00000"
    needs_reference = False
    needs_retain = False

    strength: float = 0.5

    def __call__(self, predictions: Predictions, reference_log_probs: PerExample | None) -> PerExample:
        return self.strength * predictions.mean_log_probs()


@pytest.mark.parametrize(
    ("name", "term"), [("ga", GradientAscent()), ("gd", GradientAscent()), ("npo", NPO()), ("ihl", InvertedHinge())]
)
def test_total_is_forget_mean_plus_weighted_retain_mean(name: str, term: ForgetTerm) -> None:
    smaller_retain = Predictions(RETAIN.logits[:2], RETAIN.labels[:2])
    parts = Objective(name, retain="nll", retain_weight=1.3)(FORGET, smaller_retain, REFERENCE)
    forget_mean = term(FORGET, REFERENCE).mean()
    retain_mean = RetainNLL()(smaller_retain).mean()
    assert parts.retain_term is not None
    assert torch.equal(parts.forget_term, forget_mean)
    assert torch.equal(parts.retain_term, retain_mean)  # unweighted: lambda is applied once, in the total
    assert float(parts.total) == pytest.approx(float(forget_mean) + 1.3 * float(retain_mean), rel=1e-12)


def test_doubling_the_retain_weight_doubles_the_retain_gradient() -> None:
    logits = RETAIN.logits.clone().requires_grad_()
    gradients = [
        torch.autograd.grad(
            Objective("ihl", retain_weight=weight)(FORGET, Predictions(logits, RETAIN.labels), None).total, logits
        )[0]
        for weight in (1.5, 3.0)
    ]
    torch.testing.assert_close(gradients[1], 2 * gradients[0])


def test_objective_without_retain_term_is_the_forget_term() -> None:
    parts = Objective("ga", retain=None)(FORGET, None, None)
    assert parts.retain_term is None
    assert torch.equal(parts.total, parts.forget_term)


def test_beta_reaches_npo() -> None:
    parts = Objective("npo", retain=None, beta=2.0)(FORGET, None, REFERENCE)
    assert torch.equal(parts.total, NPO(2.0)(FORGET, REFERENCE).mean())


def test_own_term_takes_part() -> None:
    objective = Objective(Half(0.25), retain=None)
    assert torch.equal(objective(FORGET, None, None).total, 0.25 * FORGET.mean_log_probs().mean())
    assert objective.describe() == {"forget": "half", "strength": 0.25, "retain": None}


def test_needs_reference_is_true_for_npo_only() -> None:
    assert {name: Objective(name).needs_reference for name in ("ga", "gd", "npo", "ihl")} == {
        "ga": False,
        "gd": False,
        "npo": True,
        "ihl": False,
    }


def test_describe_records_the_terms_and_their_parameters() -> None:
    assert Objective("npo", retain_weight=1.3).describe() == {
        "forget": "npo",
        "beta": 0.1,
        "retain": "nll",
        "retain_weight": 1.3,
    }
    assert Objective("gd").describe() == {"forget": "ga", "retain": "nll", "retain_weight": 1.0}


def test_equal_objectives_are_equal_and_frozen() -> None:
    assert Objective("ihl") == Objective("ihl")
    with pytest.raises(AttributeError):
        Objective("ihl").retain_weight = 2.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forget": "nppo"}, "unknown forget term 'nppo'. Did you mean 'npo'?"),
        ({"forget": "zzz"}, "Known: ga, npo, ihl, gd."),
        ({"forget": "ga", "retain": "nl"}, "unknown retain term 'nl'. Did you mean 'nll'?"),
        ({"forget": "ihl", "retain": None}, "'ihl' needs a retain term"),
        ({"forget": "gd", "retain": None}, "'gd' needs a retain term"),
        ({"forget": InvertedHinge(), "retain": None}, "'ihl' needs a retain term"),
        ({"forget": "ihl", "beta": 0.1}, "beta belongs to 'npo'"),
        ({"forget": NPO(), "beta": 0.2}, "beta belongs to 'npo'"),
        ({"forget": "npo", "beta": -1.0}, "beta must be a positive number"),
        ({"forget": "ga", "retain_weight": -1.0}, "retain_weight must be"),
        ({"forget": "ga", "retain_weight": math.nan}, "retain_weight must be"),
    ],
)
def test_wrong_objective_is_refused_at_construction(arguments: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        Objective(**arguments)
    assert message in str(error.value)


def test_missing_retain_batch_is_refused() -> None:
    with pytest.raises(InputError, match="needs a retain batch"):
        Objective("ihl")(FORGET, None, None)
